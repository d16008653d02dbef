package emulator

import (
	"fmt"
	"io"
	"os"
)

// segment names one data file: the whole of an object or one of its parts.
type segment struct {
	ID   string `json:"id"`
	Size int64  `json:"size"` // plaintext length in bytes
	// Key is the data key wrapped by the object's root key; empty means that
	// the file is the plaintext. OuterKey is that of the second layer.
	Key      []byte `json:"key,omitempty"`
	OuterKey []byte `json:"outerKey,omitempty"`
}

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

// create starts a segment whose bytes are sealed under root; nil leaves them
// as they are.
func (v *vault) create(root *rootKey) (*segmentWriter, error) {
	w := &segmentWriter{v: v, seg: segment{ID: newID()}, tmp: v.tmpPath()}
	var fr *frames
	if root != nil {
		var err error
		if fr, err = root.lock(&w.seg); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(w.tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	w.f = f
	if fr != nil {
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

// ReadFrom appends all of r; a file to a plaintext segment inside the kernel.
func (w *segmentWriter) ReadFrom(r io.Reader) (int64, error) {
	if w.enc != nil {
		return io.Copy(w.enc, r)
	}
	n, err := w.f.ReadFrom(r)
	w.seg.Size += n
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

// writeRange writes n bytes from off of the segments in the data directory dir
// to w; root opens those that are sealed. Plaintext goes by w's ReadFrom when it has one, which is sendfile for a
// TCP connection.
func (v *vault) writeRange(w io.Writer, dir string, segs []segment, root *rootKey, off, n int64) error {
	for _, s := range segs {
		if n == 0 {
			return nil
		}
		if off >= s.Size {
			off -= s.Size
			continue
		}
		m := min(n, s.Size-off)
		if err := v.writeSegment(w, dir, s, root, off, m); err != nil {
			return err
		}
		off, n = 0, n-m
	}
	if n > 0 {
		return fmt.Errorf("emulator: range ends %d bytes beyond the stored data", n)
	}
	return nil
}

func (v *vault) writeSegment(w io.Writer, dir string, s segment, root *rootKey, off, n int64) error {
	f, err := os.Open(spread(dir, s.ID))
	if err != nil {
		return err
	}
	defer f.Close()
	if len(s.Key) == 0 {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return err
		}
		m, err := io.Copy(w, io.LimitReader(f, n))
		if err == nil && m < n {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	fr, err := root.unlock(s)
	if err != nil {
		return err
	}
	buf := v.buffers.Get().(*[]byte)
	defer v.buffers.Put(buf)
	return newFrameReader(fr, f, s.Size, *buf).writeRange(w, off, n)
}
