package main

import (
	"strings"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/s3store"
)

// readCustomerKey reads a file that holds a customer key (SSE-C).
func readCustomerKey(name string) (s3store.CustomerKey, error) {
	raw, err := readKeyFile("customer key file", name)
	if err != nil {
		return s3store.CustomerKey{}, err
	}
	defer clear(raw)
	return s3store.NewCustomerKey(raw)
}

// readKeyFile reads a file that holds a key of 32 bytes; what is the file's name in
// errors. The caller clears the key.
func readKeyFile(what, name string) ([]byte, error) { return keyring.KeyFile(what, name, 32) }

// customerKeys reads the key files of the settings and their rules. It returns
// all keys in the order in which they are named, each once, and the MD5 of the
// first key of each rule.
func customerKeys(cfg Config) (keys []s3store.CustomerKey, ofRule []string, err error) {
	seen := map[string]bool{}
	read := func(files pathList) (first string, err error) {
		for i, name := range files {
			k, err := readCustomerKey(name)
			if err != nil {
				return "", err
			}
			if i == 0 {
				first = k.MD5()
			}
			if !seen[k.MD5()] {
				seen[k.MD5()] = true
				keys = append(keys, k)
			}
		}
		return first, nil
	}
	first, err := read(cfg.CustomerKeyFiles)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range cfg.Encryption {
		md5, err := read(r.CustomerKeyFiles)
		if err != nil {
			return nil, nil, err
		}
		if md5 == "" && r.SSE.value == sseCustomer {
			md5 = first
		}
		ofRule = append(ofRule, md5)
	}
	return keys, ofRule, nil
}

// pathList is a list of files, written with colons between them. A flag that
// is repeated adds to it; what comes from another source replaces it.
type pathList []string

func (l *pathList) split(s string) (files []string) {
	for _, f := range strings.Split(s, ":") {
		if f != "" {
			files = append(files, f)
		}
	}
	return files
}

func (l *pathList) Set(s string) error           { *l = append(*l, l.split(s)...); return nil }
func (l *pathList) Append(s string) error        { return l.Set(s) }
func (l *pathList) Replace(files []string) error { *l = files; return nil }
func (l *pathList) GetSlice() []string           { return *l }
func (l *pathList) Type() string                 { return "file" }
func (l *pathList) String() string               { return strings.Join(*l, ":") }
func (l *pathList) UnmarshalYAML(unmarshal func(any) error) error {
	var many []string
	if err := unmarshal(&many); err == nil {
		*l = many
		return nil
	}
	var one string
	if err := unmarshal(&one); err != nil {
		return err
	}
	*l = l.split(one)
	return nil
}
