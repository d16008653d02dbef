package cse_test

import (
	"bytes"
	"testing"

	"coffer/objstore/cse"
	"coffer/objstore/cse/message"
)

// TestStreams: what is encrypted from a stream is decrypted to one; what was cut,
// lengthened or changed is an error, and its last frame is not written.
func TestStreams(t *testing.T) {
	ring := newRing(t)
	for _, n := range []int{0, 1, frame - 1, frame, frame + 1, 3*frame + 17} {
		plain := random(n)
		var sealed, got bytes.Buffer
		if err := cse.Encrypt(t.Context(), ring, message.Context{}, &sealed, bytes.NewReader(plain)); err != nil {
			t.Fatal(err)
		}
		if err := cse.Decrypt(t.Context(), ring, false, &got, bytes.NewReader(sealed.Bytes())); err != nil || !bytes.Equal(got.Bytes(), plain) {
			t.Errorf("%d bytes: %v", n, err)
		}
		p := sealed.Bytes()
		last := len(p) - n%frame - message.FinalOverhead
		for what, changed := range map[string][]byte{
			"cut by a byte":         p[:len(p)-1],
			"without a final frame": p[:last],
			"nothing but a header":  p[:1024],
			"half a header":         p[:500],
			"nothing":               nil,
			"a byte more":           append(bytes.Clone(p), 0),
			"a bit of its tag":      flipped(p, len(p)-1),
			"a bit of the header":   flipped(p, 100),
			"a bit of its length":   flipped(p, last+message.FinalPrefix-1),
		} {
			got.Reset()
			if err := cse.Decrypt(t.Context(), ring, false, &got, bytes.NewReader(changed)); err == nil {
				t.Errorf("%d bytes, %s: no error", n, what)
			}
			if got.Len() > n-n%frame || !bytes.HasPrefix(plain, got.Bytes()) {
				t.Errorf("%d bytes, %s: %d were written", n, what, got.Len())
			}
		}
		if err := cse.Decrypt(t.Context(), newRing(t), false, &got, bytes.NewReader(p)); err == nil {
			t.Errorf("%d bytes: decrypted under another key", n)
		}
	}
}

func flipped(p []byte, at int) []byte {
	p = bytes.Clone(p)
	p[at] ^= 1
	return p
}

// FuzzDecrypt: no bytes make it panic, take much memory, or write what nobody sealed.
func FuzzDecrypt(f *testing.F) {
	ring := newRing(f)
	plain := random(2*frame + 5)
	var sealed bytes.Buffer
	if err := cse.Encrypt(f.Context(), ring, message.Context{}, &sealed, bytes.NewReader(plain)); err != nil {
		f.Fatal(err)
	}
	f.Add(sealed.Bytes())
	f.Add(sealed.Bytes()[:2000])
	f.Fuzz(func(t *testing.T, p []byte) {
		var got bytes.Buffer
		err := cse.Decrypt(t.Context(), ring, true, &got, bytes.NewReader(p))
		if err == nil && !bytes.Equal(p, sealed.Bytes()) || !bytes.HasPrefix(plain, got.Bytes()) {
			t.Errorf("%d bytes were written, %v", got.Len(), err)
		}
	})
}
