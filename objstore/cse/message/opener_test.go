package message

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// tampered are the messages that the tests of damage start from: every kind
// of header, body and footer, small enough to try all bytes.
func tampered(t testing.TB) map[string][]byte {
	return map[string][]byte{
		"own":                       own(t, 16, pattern(40)),
		"own, empty final frame":    own(t, 16, pattern(32)),
		"own, empty file":           own(t, 16, nil),
		"0478, full final frame":    other{suite: Committed, frame: 16, fullFinal: true, context: map[string]string{"k": "v"}}.write(t, pattern(32)),
		"0478, a block":             other{suite: Committed}.write(t, pattern(40)),
		"0578":                      other{suite: CommittedSigned, frame: 16, signatureBytes: 103}.write(t, pattern(40)),
		"0578, signature not cut":   other{suite: CommittedSigned, frame: 16}.write(t, pattern(40)),
		"0578, a block":             other{suite: CommittedSigned}.write(t, pattern(40)),
		"0014":                      other{suite: 0x0014, frame: 16}.write(t, pattern(40)),
		"0178":                      other{suite: 0x0178, frame: 16, context: map[string]string{"k": "v", "l": "w"}}.write(t, pattern(40)),
		"0214":                      other{suite: 0x0214, frame: 16, signatureBytes: 71}.write(t, pattern(40)),
		"0378":                      other{suite: 0x0378, frame: 16}.write(t, pattern(16)),
		"0378, a block":             other{suite: 0x0378}.write(t, pattern(16)),
		"0178, an empty block":      other{suite: 0x0178}.write(t, nil),
		"0478, frames of one byte":  other{suite: Committed, frame: 1}.write(t, pattern(5)),
		"0346, frames of 100 bytes": other{suite: 0x0346, frame: 100}.write(t, pattern(110)),
	}
}

func suiteOf(t testing.TB, msg []byte) Suite {
	t.Helper()
	h, err := ParseHeader(msg)
	require.NoError(t, err)
	return h.Suite
}

// typed fails the test unless err is an Error of this package with a text.
func typed(t testing.TB, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Text == "" || e.Part == "" {
		t.Fatalf("not an error of this package with part and text: %v", err)
	}
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	for name, msg := range tampered(t) {
		t.Run(name, func(t *testing.T) {
			key := testKey(suiteOf(t, msg))
			_, err := decrypt(msg, key, Context{})
			require.NoError(t, err)
			signed := suiteOf(t, msg).Signed()
			for i := range msg {
				for bit := range 8 {
					if signed && bit != i%8 {
						continue // verifying takes its time
					}
					bad := bytes.Clone(msg)
					bad[i] ^= 1 << bit
					if _, err := decrypt(bad, key, Context{}); err == nil {
						t.Fatalf("bit %d of byte %d of %d", bit, i, len(msg))
					} else {
						typed(t, err)
					}
				}
			}
		})
	}
}

func TestEveryTruncationIsFound(t *testing.T) {
	for name, msg := range tampered(t) {
		t.Run(name, func(t *testing.T) {
			key := testKey(suiteOf(t, msg))
			for n := range msg {
				_, err := decrypt(msg[:n], key, Context{})
				require.Error(t, err, "cut to %d bytes of %d", n, len(msg))
				typed(t, err)
			}
			for n := 1; n < 300; n++ {
				_, err := decrypt(append(bytes.Clone(msg), make([]byte, n)...), key, Context{})
				require.Error(t, err, "%d bytes more", n)
				typed(t, err)
			}
			_, err := decrypt(slices.Concat(msg, msg), key, Context{})
			require.Error(t, err, "twice")
			_, err = decrypt(slices.Concat(msg[:20], msg), key, Context{})
			require.Error(t, err, "a piece in front")
		})
	}
}

// pieces takes a message of frames apart: header, frames, footer.
func pieces(t testing.TB, msg []byte) (header []byte, frames [][]byte, footer []byte) {
	t.Helper()
	h, err := ParseHeader(msg)
	require.NoError(t, err)
	o, err := NewOpener(h, testKey(h.Suite), Context{})
	require.NoError(t, err)
	l, _, err := o.Locate(nil, int64(len(msg)), msg)
	require.NoError(t, err)
	for i := range l.Full + 1 {
		frames = append(frames, msg[l.Offset(i):l.Offset(i)+l.Bytes(i)])
	}
	return h.Raw(), frames, msg[l.Stored()-l.Footer:]
}

// Frames that are genuine, and not at their place or not of their message.
func TestMovedFramesAreFound(t *testing.T) {
	for _, suite := range []Suite{0x0078, 0x0178, 0x0378, Committed, CommittedSigned} {
		for _, size := range []int{16*4 + 5, 16 * 4} {
			w := other{suite: suite, frame: 16}
			header, frames, footer := pieces(t, w.write(t, pattern(size)))
			otherHeader, otherFrames, otherFooter := pieces(t, w.write(t, pattern(size)))
			build := func(header []byte, footer []byte, frames ...[]byte) []byte {
				return slices.Concat(header, slices.Concat(frames...), footer)
			}
			last := len(frames) - 1
			with := func(i int, frame []byte) [][]byte {
				f := slices.Clone(frames)
				f[i] = frame
				return f
			}
			numbered := bytes.Clone(frames[1]) // as frame 0, by its number only
			binary.BigEndian.PutUint32(numbered, 1)
			renumbered := bytes.Clone(numbered) // and by its IV
			binary.BigEndian.PutUint32(renumbered[12:], 1)
			cases := map[string][]byte{
				"dropped in front":        build(header, footer, frames[1:]...),
				"dropped in the middle":   build(header, footer, slices.Delete(slices.Clone(frames), 2, 3)...),
				"the last regular one":    build(header, footer, slices.Delete(slices.Clone(frames), last-1, last)...),
				"without the final frame": build(header, footer, frames[:last]...),
				"cut after one frame":     build(header, footer, frames[:1]...),
				"swapped":                 build(header, footer, frames[1], frames[0], frames[2], frames[3], frames[4]),
				"twice":                   build(header, footer, slices.Insert(slices.Clone(frames), 1, frames[0])...),
				"final frame twice":       build(header, footer, append(slices.Clone(frames), frames[last])...),
				"one for another":         build(header, footer, with(0, frames[1])...),
				"renumbered":              build(header, footer, with(0, numbered)...),
				"renumbered with its IV":  build(header, footer, with(0, renumbered)...),
				"grafted":                 build(header, footer, with(2, otherFrames[2])...),
				"grafted final frame":     build(header, footer, with(last, otherFrames[last])...),
				"header of another":       build(otherHeader, footer, frames...),
				"body of another":         build(header, otherFooter, otherFrames...),
				"only the final frame":    build(header, footer, frames[last]),
				"final frame in front":    build(header, footer, append([][]byte{frames[last]}, frames...)...),
				"regular frame at the end, marked final": build(header, footer, with(last, slices.Concat([]byte{255, 255, 255, 255},
					frames[last-1][:16], []byte{0, 0, 0, 16}, frames[last-1][16:]))...),
			}
			if suite.Signed() {
				cases["footer of another"] = build(header, otherFooter, frames...)
				cases["without a footer"] = build(header, nil, frames...)
				cases["two footers"] = build(header, slices.Concat(footer, footer), frames...)
			}
			for name, msg := range cases {
				_, err := decrypt(msg, testKey(suite), Context{})
				require.Error(t, err, "%s, %d bytes: %s", suite, size, name)
				typed(t, err)
			}
			got, err := decrypt(build(header, footer, frames...), testKey(suite), Context{})
			require.NoError(t, err)
			require.Equal(t, pattern(size), got)
		}
	}
}

// IVs are taken from the frame: some writers do not number them.
func TestAnyIVIsRead(t *testing.T) {
	for _, suite := range []Suite{0x0178, Committed} {
		w := other{suite: suite, frame: 16}
		msg := w.write(t, nil)
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(suite), Context{})
		require.NoError(t, err)
		frame := append([]byte{0, 0, 0, 1}, "an odd nonce"...)
		frame = o.keys.aead().Seal(frame, frame[4:], pattern(16), *o.aad(regularAAD, 1, 16))
		got, err := o.Open(nil, 0, frame)
		require.NoError(t, err)
		require.Equal(t, pattern(16), got)
	}
}

// What a message without frames is sealed with is told without all of it.
func TestBlock(t *testing.T) {
	for _, suite := range []Suite{0x0014, 0x0178, Committed, CommittedSigned} {
		msg := other{suite: suite}.write(t, pattern(40))
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(suite), Context{})
		require.NoError(t, err)
		rest := msg[h.Bytes():]
		b, err := o.Block(rest[:BlockPrefix])
		require.NoError(t, err)
		require.Equal(t, int64(40), b.Size)
		block, err := aes.NewCipher(b.Key.Bytes())
		require.NoError(t, err)
		aead, err := cipher.NewGCM(block)
		require.NoError(t, err)
		got, err := aead.Open(nil, b.IV, rest[BlockPrefix:BlockOverhead+b.Size], b.AAD)
		require.NoError(t, err)
		require.Equal(t, pattern(40), got)
		_, err = o.Block(rest[:BlockPrefix-1])
		require.ErrorIs(t, err, Short)
		_, err = o.Block(slices.Concat(rest[:12], bytes.Repeat([]byte{255}, 8)))
		require.ErrorIs(t, err, TooLarge)
	}
	msg := own(t, 16, nil)
	h, err := ParseHeader(msg)
	require.NoError(t, err)
	o, err := NewOpener(h, testKey(Committed), Context{})
	require.NoError(t, err)
	_, err = o.Block(msg[h.Bytes():])
	require.ErrorIs(t, err, Malformed)
}

func TestWhatOpenersSay(t *testing.T) {
	open := func(msg []byte) *Opener {
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(h.Suite), Context{})
		require.NoError(t, err)
		return o
	}
	msg := own(t, 16, pattern(16*2+3))
	_, frames, _ := pieces(t, msg)
	o := open(msg)
	block := other{suite: Committed}.write(t, pattern(40))
	ob := open(block)
	rest := block[ob.Header().Bytes():]
	flip := func(p []byte, i int) []byte { p = bytes.Clone(p); p[i] ^= 1; return p }
	frame := func(i int64, p []byte) func() error {
		return func() error { _, err := o.Open(nil, i, p); return err }
	}
	final := func(i int64, p []byte) func() error {
		return func() error { _, err := o.OpenFinal(nil, i, p); return err }
	}
	for _, tt := range []struct {
		name string
		do   func() error
		kind Kind
		text string
	}{
		{"length", frame(0, frames[0][:47]), Malformed, "frame 0: 47 bytes, a regular frame has 48"},
		{"number", frame(0, frames[1]), Malformed, "frame 0: sequence number 2, not 1"},
		{"final for regular", frame(1, append(bytes.Clone(frames[2]), 0, 0, 0, 0, 0)), Malformed, "frame 1: a final frame where a regular one must be"},
		{"content", frame(1, flip(frames[1], 20)), Unauthentic, "frame 1: its tag does not fit"},
		{"IV", frame(1, flip(frames[1], 5)), Unauthentic, "frame 1: its tag"},
		{"tag", frame(1, flip(frames[1], 47)), Unauthentic, "frame 1: its tag"},
		{"no such frame", frame(-1, frames[0]), TooLarge, "no frame -1"},
		{"no such number", frame(1<<32-1, frames[0]), TooLarge, "no frame 4294967295"},
		{"final frame that is none", final(0, frames[0]), Malformed, "final frame: it does not begin as a final frame"},
		{"final frame of no length", final(2, frames[2][:39]), Malformed, "final frame: 39 bytes, a final frame has 40 at least"},
		{"number of the final frame", final(1, frames[2]), Malformed, "final frame: sequence number 3, not 2"},
		{"length in the final frame", final(2, flip(frames[2], 23)), Malformed, "final frame: 2 bytes, there are 3"},
		{"length in the final frame, beyond a frame", final(2, flip(frames[2], 22)), Malformed, "final frame: 259 bytes, a frame has 16"},
		{"final frame", final(2, flip(frames[2], 24)), Unauthentic, "final frame: its tag"},
		{"frame of a block", func() error { _, err := ob.Open(nil, 0, frames[0]); return err }, Malformed, "single block"},
		{"final frame of a block", func() error { _, err := ob.OpenFinal(nil, 0, frames[2]); return err }, Malformed, "single block"},
		{"layout of a block", func() error { _, _, err := ob.Locate(nil, int64(len(block)), block); return err }, Malformed, "single block"},
		{"block of frames", func() error { _, err := o.OpenBlock(nil, rest, 100); return err }, Malformed, "frames of 16 bytes"},
		{"no block", func() error { _, err := ob.OpenBlock(nil, rest[:19], 100); return err }, Short, "20 bytes, there are 19"},
		{"a short block", func() error { _, err := ob.OpenBlock(nil, rest[:75], 100); return err }, Short, "76 bytes, there are 75"},
		{"a long block", func() error { _, err := ob.OpenBlock(nil, rest, 39); return err }, TooLarge, "40 bytes, at most 39"},
		{"a negative limit", func() error { _, err := ob.OpenBlock(nil, rest, -1); return err }, TooLarge, "at most 0"},
		{"a huge block", func() error {
			_, err := ob.OpenBlock(nil, slices.Concat(rest[:12], bytes.Repeat([]byte{255}, 8), rest[20:]), 1<<63-1)
			return err
		}, TooLarge, "18446744073709551615 bytes"},
		{"a block and more", func() error { _, err := ob.OpenBlock(nil, append(bytes.Clone(rest), 1), 100); return err }, Malformed, "1 bytes after its end"},
		{"a block", func() error { _, err := ob.OpenBlock(nil, flip(rest, 30), 100); return err }, Unauthentic, "block: its tag"},
		{"signature of none", func() error { _, err := o.Verifier(); return err }, Unsupported, "suite 0x0478 has no signature"},
		{"cut within a frame", func() error { _, _, err := o.Locate(nil, int64(len(msg))-4, msg[:len(msg)-4]); return err }, Malformed, "261 bytes are cut off within a frame of 16"},
		{"cut between frames", func() error { _, _, err := o.Locate(nil, int64(len(msg))-43, msg[:len(msg)-43]); return err }, Malformed, "final frame"},
		{"required twice", func() error {
			c := Context{[]pair{{"k", "v"}}}
			h, err := ParseHeader(other{suite: Committed, frame: 16, context: map[string]string{"k": "v"}}.write(t, nil))
			require.NoError(t, err)
			_, err = NewOpener(h, testKey(Committed), c)
			return err
		}, Malformed, `the name "k" occurs twice`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do()
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.text)
			typed(t, err)
		})
	}
}

// Locate says how much of the end it needs, and with that it is satisfied;
// more does no harm.
func TestLocateWithATail(t *testing.T) {
	for name, msg := range tampered(t) {
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		if h.Frame == 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			o, err := NewOpener(h, testKey(h.Suite), Context{})
			require.NoError(t, err)
			stored := int64(len(msg))
			want, wantLast, err := o.Locate(nil, stored, msg)
			require.NoError(t, err)
			tries := 0
			for n := int64(0); ; tries++ {
				l, last, err := o.Locate([]byte("before"), stored, msg[stored-n:])
				if err == nil {
					require.Equal(t, want, l)
					require.Equal(t, "before"+string(wantLast), string(last))
					require.GreaterOrEqual(t, n, l.Bytes(l.Full)+l.Footer)
					break
				}
				var short *Error
				require.ErrorAs(t, err, &short)
				require.Equal(t, Short, short.Kind, "%v", err)
				require.Greater(t, short.Need, n)
				require.LessOrEqual(t, short.Need, stored)
				n = short.Need
			}
			require.LessOrEqual(t, tries, 2)
			require.Equal(t, stored, want.Stored())
		})
	}
}

func TestOpenerAllocatesNothing(t *testing.T) {
	const frame = 64 << 10
	s, o := benchPair(t, frame)
	plain, sealed := pattern(frame), make([]byte, 0, frame+FrameOverhead)
	sealed, err := s.Seal(sealed, 0, plain)
	require.NoError(t, err)
	dst := make([]byte, 0, frame)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := o.Open(dst, 0, sealed); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("Open: %v allocations a frame", n)
	}
	i := int64(1)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := s.Seal(sealed[:0], i, plain); err != nil {
			t.Error(err)
		}
		i++
	}); n != 0 {
		t.Errorf("Seal: %v allocations a frame", n)
	}
}

// A message is as long as its layout says, at every size around full frames.
func TestStoredSizes(t *testing.T) {
	for _, size := range []int{0, 1, 15, 16, 17, 31, 32, 33, 100} {
		s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 16)
		require.NoError(t, err)
		l, err := s.Profile().ForSize(int64(size))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(l.Stored()), fmt.Sprint(len(sealAll(t, s, pattern(size)))), "%d bytes", size)
	}
}
