package emulator

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// frameSize is the plaintext length of a frame in bytes. 64 KiB keeps the
// tags' share at 0.02 % and what a small range has to decrypt beyond its own
// bytes small.
const frameSize = 64 << 10

// tagSize is what one layer of encryption adds to a frame: GCM's tag.
const tagSize = 16

// maxSealed is the longest stored frame: its bytes and the tags of two layers.
const maxSealed = frameSize + 2*tagSize

var errTampered = errors.New("emulator: stored frame does not authenticate")

// frameCount returns the number of frames of a segment of size bytes. An empty
// segment has one, so that its emptiness is authenticated too.
func frameCount(size int64) int64 {
	return max(1, (size+frameSize-1)/frameSize)
}

// frames seals and opens the frames of one segment under its data keys, the
// inner one first: one or, where an object is encrypted twice, two. The
// nonce is the frame's number and whether it is the last one: a data key is
// used for one segment only, so no nonce repeats, and frames cannot be
// swapped, dropped or cut off at the end. The segment's id is the additional
// data, so frames cannot move between segments either.
type frames struct {
	layers []cipher.AEAD
	aad    []byte
}

func newFrames(id string, dataKeys ...[]byte) (*frames, error) {
	f := &frames{aad: []byte("coffer-emulator frame v1 " + id)}
	for _, key := range dataKeys {
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("data key of %s: %w", id, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		f.layers = append(f.layers, aead)
	}
	return f, nil
}

// overhead is what is stored of a frame beyond its plaintext, in bytes.
func (f *frames) overhead() int64 { return tagSize * int64(len(f.layers)) }

// seal encrypts in place; text has room for the overhead.
func (f *frames) seal(text []byte, n int64, last bool) []byte {
	for _, aead := range f.layers {
		text = aead.Seal(text[:0], frameNonce(n, last), text, f.aad)
	}
	return text
}

// open decrypts in place.
func (f *frames) open(sealed []byte, n int64, last bool) ([]byte, error) {
	for _, aead := range slices.Backward(f.layers) {
		var err error
		if sealed, err = aead.Open(sealed[:0], frameNonce(n, last), sealed, f.aad); err != nil {
			return nil, fmt.Errorf("frame %d: %w", n, errTampered)
		}
	}
	return sealed, nil
}

func frameNonce(n int64, last bool) []byte {
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[:8], uint64(n))
	if last {
		nonce[11] = 1
	}
	return nonce[:]
}

// frameWriter encrypts what is written to it frame by frame. Close writes the
// last frame; it does not close dst.
type frameWriter struct {
	f    *frames
	dst  io.Writer
	n    int64
	size int64
	buf  []byte // plaintext of the frame being filled; cap is maxSealed
}

func newFrameWriter(f *frames, dst io.Writer, buf []byte) *frameWriter {
	return &frameWriter{f: f, dst: dst, buf: buf[:0]}
}

func (w *frameWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		// A full frame is sealed only when more follows: the last one is
		// marked as such.
		if len(w.buf) == frameSize {
			if err := w.seal(false); err != nil {
				return written, err
			}
		}
		n := min(len(p), frameSize-len(w.buf))
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
		written += n
		w.size += int64(n)
	}
	return written, nil
}

func (w *frameWriter) seal(last bool) error {
	sealed := w.f.seal(w.buf, w.n, last)
	w.n++
	w.buf = w.buf[:0]
	_, err := w.dst.Write(sealed)
	return err
}

func (w *frameWriter) Close() error { return w.seal(true) }

// frameReader reads the plaintext of an encrypted segment at any offset.
// Not safe for concurrent use: it owns one buffer.
type frameReader struct {
	f    *frames
	src  io.ReaderAt
	size int64
	buf  []byte // length maxSealed
	have int64  // number of the frame whose plaintext is in plain, or -1
	text []byte
}

func newFrameReader(f *frames, src io.ReaderAt, size int64, buf []byte) *frameReader {
	return &frameReader{f: f, src: src, size: size, buf: buf[:maxSealed], have: -1}
}

// frame returns the plaintext of frame n, valid until the next call.
func (r *frameReader) frame(n int64) ([]byte, error) {
	if n == r.have {
		return r.text, nil
	}
	last := n == frameCount(r.size)-1
	stored := frameSize + r.f.overhead()
	if last {
		stored = r.size - n*frameSize + r.f.overhead()
	}
	sealed := r.buf[:stored]
	r.have = -1
	if _, err := r.src.ReadAt(sealed, n*(frameSize+r.f.overhead())); err != nil {
		return nil, fmt.Errorf("read frame %d: %w", n, err)
	}
	text, err := r.f.open(sealed, n, last)
	if err != nil {
		return nil, err
	}
	r.have, r.text = n, text
	return text, nil
}

// writeRange writes n bytes from off to w.
func (r *frameReader) writeRange(w io.Writer, off, n int64) error {
	for n > 0 {
		text, err := r.frame(off / frameSize)
		if err != nil {
			return err
		}
		text = text[off%frameSize:]
		text = text[:min(int64(len(text)), n)]
		if _, err := w.Write(text); err != nil {
			return err
		}
		off += int64(len(text))
		n -= int64(len(text))
	}
	return nil
}
