package emulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// segment names one data file: the whole of an object or one of its parts.
type segment struct {
	ID   string `json:"id"`
	Size int64  `json:"size"` // plaintext length in bytes
	// Key is the data key wrapped by the key-encryption key; empty means that
	// the file is the plaintext.
	Key []byte `json:"key,omitempty"`
}

// vault keeps files below one directory. Safe for concurrent use.
type vault struct {
	dir   string
	fsync bool
	kek   cipher.AEAD
	// buffers holds *[]byte of sealedFrame bytes, one for each segment that
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
	v.buffers.New = func() any { b := make([]byte, sealedFrame); return &b }
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
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if v.kek, err = cipher.NewGCM(block); err != nil {
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

// segmentWriter writes one new segment. Exactly one of finish and abort ends
// it; abort after finish does nothing.
type segmentWriter struct {
	v    *vault
	seg  segment
	f    *os.File
	tmp  string
	enc  *frameWriter // nil for plaintext
	buf  *[]byte
	done bool
}

// create starts a segment; encrypted tells whether its bytes are sealed.
func (v *vault) create(encrypted bool) (*segmentWriter, error) {
	w := &segmentWriter{v: v, seg: segment{ID: newID()}, tmp: v.tmpPath()}
	var fr *frames
	if encrypted {
		dataKey := make([]byte, 32)
		rand.Read(dataKey)
		w.seg.Key = v.wrap(dataKey, w.seg.ID)
		var err error
		if fr, err = newFrames(dataKey, w.seg.ID); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(w.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	w.f = f
	if encrypted {
		w.buf = v.buffers.Get().(*[]byte)
		w.enc = newFrameWriter(fr, f, *w.buf)
	}
	return w, nil
}

// Write appends to the segment.
func (w *segmentWriter) Write(p []byte) (int, error) {
	if w.enc != nil {
		return w.enc.Write(p)
	}
	n, err := w.f.Write(p)
	w.seg.Size += int64(n)
	return n, err
}

// finish moves the segment into the data directory dir.
func (w *segmentWriter) finish(dir string) (segment, error) {
	var err error
	if w.enc != nil {
		err = w.enc.Close()
		w.seg.Size = w.enc.size
	}
	w.release()
	err = w.v.place(w.f, w.tmp, spread(dir, w.seg.ID), err)
	return w.seg, err
}

// abort removes what was written.
func (w *segmentWriter) abort() {
	if w.done {
		return
	}
	w.release()
	w.f.Close()
	os.Remove(w.tmp)
}

func (w *segmentWriter) release() {
	w.done = true
	if w.buf != nil {
		w.v.buffers.Put(w.buf)
		w.buf, w.enc = nil, nil
	}
}

// remove deletes segments of the data directory dir. A reader that has one
// open keeps it.
func (v *vault) remove(dir string, segs []segment) {
	for _, s := range segs {
		os.Remove(spread(dir, s.ID))
	}
}

// openSegments opens all segments for reading; an error that is
// fs.ErrNotExist tells that the version was removed in the meantime.
func (v *vault) openSegments(dir string, segs []segment) (*content, error) {
	c := &content{v: v}
	for _, s := range segs {
		f, err := os.Open(spread(dir, s.ID))
		if err != nil {
			c.Close()
			return nil, err
		}
		c.parts = append(c.parts, openSegment{seg: s, f: f})
		c.size += s.Size
	}
	return c, nil
}

type openSegment struct {
	seg segment
	f   *os.File
}

// content is the open bytes of one object version. They stay readable after
// the version is removed. Not safe for concurrent use.
type content struct {
	v     *vault
	parts []openSegment
	size  int64
}

// Close closes the files.
func (c *content) Close() error {
	var err error
	for _, p := range c.parts {
		err = errors.Join(err, p.f.Close())
	}
	c.parts = nil
	return err
}

// writeRange writes n bytes from off to w. Plaintext goes by w's ReadFrom when
// it has one, which is sendfile for a TCP connection.
func (c *content) writeRange(w io.Writer, off, n int64) error {
	for _, p := range c.parts {
		if n == 0 {
			return nil
		}
		if off >= p.seg.Size {
			off -= p.seg.Size
			continue
		}
		m := min(n, p.seg.Size-off)
		if err := c.writeSegment(w, p, off, m); err != nil {
			return err
		}
		off, n = 0, n-m
	}
	if n > 0 {
		return fmt.Errorf("emulator: range ends %d bytes beyond the stored data", n)
	}
	return nil
}

func (c *content) writeSegment(w io.Writer, p openSegment, off, n int64) error {
	if len(p.seg.Key) == 0 {
		if _, err := p.f.Seek(off, io.SeekStart); err != nil {
			return err
		}
		m, err := io.Copy(w, io.LimitReader(p.f, n))
		if err == nil && m < n {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	dataKey, err := c.v.unwrap(p.seg.Key, p.seg.ID)
	if err != nil {
		return err
	}
	fr, err := newFrames(dataKey, p.seg.ID)
	if err != nil {
		return err
	}
	buf := c.v.buffers.Get().(*[]byte)
	defer c.v.buffers.Put(buf)
	return newFrameReader(fr, p.f, p.seg.Size, *buf).writeRange(w, off, n)
}

// wrap seals a data key under the key-encryption key, bound to the segment.
func (v *vault) wrap(dataKey []byte, id string) []byte {
	nonce := make([]byte, v.kek.NonceSize())
	rand.Read(nonce)
	return v.kek.Seal(nonce, nonce, dataKey, []byte("coffer-emulator key v1 "+id))
}

func (v *vault) unwrap(wrapped []byte, id string) ([]byte, error) {
	n := v.kek.NonceSize()
	if len(wrapped) < n {
		return nil, fmt.Errorf("wrapped key of %s: %w", id, errTampered)
	}
	key, err := v.kek.Open(nil, wrapped[:n], wrapped[n:], []byte("coffer-emulator key v1 "+id))
	if err != nil {
		return nil, fmt.Errorf("wrapped key of %s: %w", id, errTampered)
	}
	return key, nil
}
