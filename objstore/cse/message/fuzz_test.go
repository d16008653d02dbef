package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever the bytes are, a header is parsed within its limits or refused,
// and every prefix of one that is parsed asks for more.
func FuzzHeader(f *testing.F) {
	f.Add(format1().bytes())
	f.Add(format2().bytes())
	f.Add([]byte("AYADeA"))
	for _, msg := range tampered(f) {
		f.Add(msg)
	}
	r := format2()
	r.context = entries(2, "l", "v", "k", "w")
	f.Add(r.bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := ParseHeader(p)
		if err != nil {
			typed(t, err)
			var short *Error
			if errors.As(err, &short); short.Kind == Short && (short.Need <= int64(len(p)) || short.Need > MaxHeader) {
				t.Fatalf("%d bytes are needed, there are %d", short.Need, len(p))
			}
			return
		}
		n := h.Bytes()
		if n > MaxHeader || n > int64(len(p)) || h.Frame > MaxFrame || len(h.EDKs) == 0 || len(h.EDKs) > MaxEDKs || !h.Suite.Known() {
			t.Fatalf("beyond the limits: %+v", h)
		}
		if h.Suite == Committed && h.Frame > 0 {
			again := append(appendHeader(nil, h), h.tag...)
			if !bytes.Equal(again, p[:n]) {
				t.Fatalf("parsed %x, written %x", p[:n], again)
			}
			if committedHeaderBytes(h.Context, edkBytes(h.EDKs)) != len(again) {
				t.Fatal("a wrong length was expected")
			}
		}
		for _, cut := range []int64{n - 1, n / 2, 5, 0} {
			_, err := ParseHeader(p[:cut])
			var short *Error
			if !errors.As(err, &short) || short.Kind != Short || short.Need <= cut || short.Need > n {
				t.Fatalf("%d bytes of %d: %v", cut, n, err)
			}
		}
	})
}

// fuzzOpener is an Opener of a golden message: a fuzzed input means the same
// in every process.
func fuzzOpener(f testing.TB, name string) (*Opener, []byte) {
	f.Helper()
	msg, err := os.ReadFile(filepath.Join("testdata", "golden", name+".esdk"))
	require.NoError(f, err)
	h, err := ParseHeader(msg)
	require.NoError(f, err)
	o, err := NewOpener(h, testKey(h.Suite), Context{})
	require.NoError(f, err)
	return o, msg
}

// No frame is opened but those that were sealed, at their place.
func FuzzFrame(f *testing.F) {
	o, msg := fuzzOpener(f, "own-33-of-16-not-padded")
	plain := pattern(33)
	_, frames, _ := pieces(f, msg)
	for i, frame := range frames {
		f.Add(int64(i), frame)
		f.Add(int64(i+1), frame)
	}
	final := bytes.Clone(frames[2])
	binary.BigEndian.PutUint32(final[20:], 1<<32-1)
	f.Add(int64(2), final)
	f.Fuzz(func(t *testing.T, i int64, frame []byte) {
		genuine := 0 <= i && i < int64(len(frames)) && bytes.Equal(frame, frames[i])
		got, err := o.Open(nil, i, frame)
		if (err == nil) != (genuine && i < 2) || err == nil && !bytes.Equal(got, plain[i*16:i*16+16]) {
			t.Fatalf("frame %d: %x, %v", i, got, err)
		}
		last, err2 := o.OpenFinal(nil, i, frame)
		if (err2 == nil) != (genuine && i == 2) || err2 == nil && !bytes.Equal(last, plain[32:]) {
			t.Fatalf("final frame %d: %x, %v", i, last, err2)
		}
		for _, err := range []error{err, err2} {
			if err != nil {
				typed(t, err)
			}
		}
	})
}

// Nothing but the end of the message is located as its end, and no other
// signature is one of it.
func FuzzFooter(f *testing.F) {
	o, msg := fuzzOpener(f, "0214")
	want, _, err := o.Locate(nil, int64(len(msg)), msg)
	require.NoError(f, err)
	end := want.Stored() - want.Footer
	f.Add(int64(len(msg)), msg)
	f.Add(int64(len(msg)), msg[len(msg)-73:])
	f.Add(int64(len(msg)), msg[len(msg)-200:])
	f.Add(int64(len(msg))-1, msg[:len(msg)-1])
	f.Add(int64(2), []byte{0, 0})
	f.Add(int64(0), []byte{})
	f.Fuzz(func(t *testing.T, stored int64, tail []byte) {
		if int64(len(tail)) > stored {
			return // no message has more tail than bytes
		}
		l, _, err := o.Locate(nil, stored, tail)
		if err != nil {
			typed(t, err)
			var short *Error
			if errors.As(err, &short); short.Kind == Short && (short.Need <= int64(len(tail)) || short.Need > stored) {
				t.Fatalf("%d bytes are needed of %d, there are %d", short.Need, stored, len(tail))
			}
			return
		}
		// The final frame is genuine. Its layout without the footer is too.
		if l.Full != want.Full || l.Last != want.Last || l.Stored() != stored || l.Size() != 100 {
			t.Fatalf("%+v of %d bytes", l, stored)
		}
		v, err := o.Verifier()
		require.NoError(t, err)
		_, _ = v.Write(msg[o.header.Bytes():end])
		footer := tail[int64(len(tail))-l.Footer:]
		// ECDSA signatures can be changed by whoever has one (s for n-s), and
		// stay signatures of the same bytes.
		if err := v.Verify(footer); err == nil && l.Footer == want.Footer && !bytes.Equal(footer[:30], msg[end:end+30]) {
			t.Fatalf("a signature that was not made: %x", footer)
		}
	})
}

// A block is opened when it is the one that was sealed.
func FuzzBlock(f *testing.F) {
	o, msg := fuzzOpener(f, "0478-block")
	rest := msg[o.header.Bytes():]
	f.Add(rest, int64(100))
	f.Add(rest, int64(99))
	f.Add(rest[:30], int64(1000))
	f.Add(append(bytes.Clone(rest[:12]), 255, 255, 255, 255, 255, 255, 255, 255), int64(-1))
	f.Fuzz(func(t *testing.T, p []byte, limit int64) {
		plain, err := o.OpenBlock(nil, p, limit)
		if (err == nil) != (bytes.Equal(p, rest) && limit >= 100) {
			t.Fatalf("%x: %v", plain, err)
		}
		if err != nil {
			typed(t, err)
		}
	})
}

// What is written is read back, whatever the sizes and the order of sealing,
// by whole and by range.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello, world"), uint16(5), true, uint16(3), uint16(4))
	f.Add([]byte{}, uint16(1), false, uint16(0), uint16(0))
	f.Add(pattern(64), uint16(16), true, uint16(15), uint16(2))
	f.Add(pattern(64), uint16(16), false, uint16(63), uint16(1))
	f.Fuzz(func(t *testing.T, plain []byte, frame uint16, inOrder bool, off, n uint16) {
		if frame == 0 || len(plain) > 4096 {
			return
		}
		s, err := NewSealer(testKey(Committed), Context{}, testEDKs, int64(frame))
		require.NoError(t, err)
		l, err := s.Profile().ForSize(int64(len(plain)))
		require.NoError(t, err)
		msg := make([]byte, l.Stored())
		copy(msg, s.Header())
		for j := range l.Full {
			i := j
			if !inOrder {
				i = l.Full - 1 - j
			}
			at := l.Offset(i)
			_, err := s.Seal(msg[at:at:at+l.Bytes(i)], i, plain[i*l.Frame:(i+1)*l.Frame])
			require.NoError(t, err)
		}
		_, err = s.SealFinal(msg[l.Offset(l.Full):l.Offset(l.Full)], plain[l.Full*l.Frame:])
		require.NoError(t, err)

		got, err := decrypt(msg, testKey(Committed), Context{})
		require.NoError(t, err)
		if !bytes.Equal(plain, got) {
			t.Fatalf("wrote %x, read %x", plain, got)
		}
		from, to := int64(off), int64(off)+int64(n)
		if from >= to || to > l.Size() {
			return
		}
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(Committed), Context{})
		require.NoError(t, err)
		first, end := l.Cover(from, to-from)
		var part []byte
		for i := first; i < end; i++ {
			open := o.Open
			if i == l.Full {
				open = o.OpenFinal
			}
			part, err = open(part, i, msg[l.Offset(i):l.Offset(i)+l.Bytes(i)])
			require.NoError(t, err)
		}
		if skip := from - first*l.Frame; !bytes.Equal(plain[from:to], part[skip:skip+to-from]) {
			t.Fatalf("[%d,%d): %x", from, to, part)
		}
	})
}

// Sizes and texts that a store tells are anything.
func FuzzProfile(f *testing.F) {
	f.Add("1;h=1024;f=65536;s=0", int64(1064))
	f.Add("1;h=722;f=4096;s=105", int64(101635))
	f.Add("2;h=1;f=1;s=1", int64(-1))
	f.Fuzz(func(t *testing.T, text string, stored int64) {
		p, err := ParseProfile(text)
		if err != nil {
			typed(t, err)
			return
		}
		if p.String() != text {
			t.Fatalf("%q is read as %q", text, p)
		}
		l, err := p.ForStored(stored)
		if err != nil {
			typed(t, err)
			return
		}
		if l.Stored() != stored || l.Size() < 0 || l.Size() > stored || l.Last > l.Frame {
			t.Fatalf("%d bytes: %+v", stored, l)
		}
	})
}
