package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"coffer/objstore/s3store"
)

// maxKeyFile is more bytes than any form of a 32-byte key takes.
const maxKeyFile = 1024

// readCustomerKey reads a file that holds a customer key (SSE-C).
func readCustomerKey(name string) (s3store.CustomerKey, error) {
	raw, err := readKeyFile("customer key file", name)
	if err != nil {
		return s3store.CustomerKey{}, err
	}
	defer clear(raw)
	return s3store.NewCustomerKey(raw)
}

// readKeyFile reads a file that holds a key: 32 raw bytes, or their hex or
// base64 with white space around. Nobody but the owner may be able to read it.
// No error shows any of its content. what is the file's name in errors; the
// caller clears the key.
func readKeyFile(what, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %s is not a regular file", what, name)
	}
	if perm := st.Mode().Perm(); perm&^0o600 != 0 {
		return nil, fmt.Errorf("%s %s has mode %04o: others must not be able to read it; run chmod 600 %s", what, name, perm, name)
	}
	text := make([]byte, maxKeyFile)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	raw := decodeKey(text[:n])
	if raw == nil {
		return nil, fmt.Errorf("%s %s holds neither 32 bytes nor their hex or base64", what, name)
	}
	return raw, nil
}

// decodeKey returns the 32 bytes of a key file, nil when it is none of
// the forms. The result is a copy.
func decodeKey(text []byte) []byte {
	const size = 32
	if len(text) == size {
		return bytes.Clone(text)
	}
	text = bytes.TrimSpace(text)
	raw := make([]byte, maxKeyFile) // more than any decoder writes
	for _, decode := range []func(dst, src []byte) (int, error){
		hex.Decode, base64.StdEncoding.Decode, base64.RawStdEncoding.Decode, base64.URLEncoding.Decode, base64.RawURLEncoding.Decode,
	} {
		if n, err := decode(raw, text); err == nil && n == size {
			return raw[:size]
		}
	}
	clear(raw)
	return nil
}

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
