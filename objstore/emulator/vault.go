package emulator

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// vault keeps files below one directory. Safe for concurrent use.
type vault struct {
	dir   string
	fsync bool
	// root is the key-encryption key.
	root *rootKey
	// buffers holds *[]byte of maxSealed bytes, one for each segment that
	// is being written or read.
	buffers sync.Pool
}

const layoutVersion = "coffer-emulator 1\n"

// openVault creates or opens dir and empties its tmp.
func openVault(dir string, fsync bool) (*vault, error) {
	for _, d := range []string{dir, filepath.Join(dir, "buckets")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	v := &vault{dir: dir, fsync: fsync}
	v.buffers.New = func() any { b := make([]byte, maxSealed); return &b }
	tmp := filepath.Join(dir, "tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return nil, err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, err
	}
	format := filepath.Join(dir, "format")
	switch b, err := os.ReadFile(format); {
	case errors.Is(err, fs.ErrNotExist):
		if err := v.writeFile(format, []byte(layoutVersion)); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case string(b) != layoutVersion:
		return nil, fmt.Errorf("%s holds another layout: %q", dir, b)
	}
	key, err := v.loadKEK()
	if err != nil {
		return nil, err
	}
	if v.root, err = newRootKey(key); err != nil {
		return nil, err
	}
	return v, nil
}

// loadKEK reads the key-encryption key and makes one when there is none.
func (v *vault) loadKEK() ([]byte, error) {
	path := filepath.Join(v.dir, "kek")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		rand.Read(key)
		return key, v.writeFile(path, []byte(hex.EncodeToString(key)+"\n"))
	}
	if err != nil {
		return nil, err
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(b)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("%s is not a key of 32 bytes in hex", path)
	}
	return key, nil
}

// newID returns a random file name.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (v *vault) tmpPath() string { return filepath.Join(v.dir, "tmp", newID()) }

// writeFile puts data under path in one step: readers and crashes see the old
// file or the new one.
func (v *vault) writeFile(path string, data []byte) error {
	tmp := v.tmpPath()
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return v.place(f, tmp, path, err)
}

// writeJSON is writeFile of a value's JSON.
func (v *vault) writeJSON(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return v.writeFile(path, data)
}

// place closes f, written under tmp with the outcome err, and renames it to
// path. On any error nothing is left.
func (v *vault) place(f *os.File, tmp, path string, err error) error {
	if err == nil && v.fsync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, path)
		if errors.Is(err, fs.ErrNotExist) {
			// The directories that spread files are made on first use, one
			// level only: a deleted bucket must not come back this way.
			if merr := os.Mkdir(filepath.Dir(path), 0o700); merr == nil || errors.Is(merr, fs.ErrExist) {
				err = os.Rename(tmp, path)
			}
		}
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	if v.fsync {
		return syncDir(filepath.Dir(path))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// spread returns the path of name below dir, in one of 256 directories.
func spread(dir, name string) string { return filepath.Join(dir, name[:2], name) }
