package message

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// nonces records every (key, IV) that is sealed and reports the first one
// that comes twice.
type nonces struct {
	mu     sync.Mutex
	seen   map[[2]string]bool
	repeat string
}

// watched is an AEAD whose seals are recorded.
type watched struct {
	cipher.AEAD
	n   *nonces
	key string
}

func (w watched) Seal(dst, iv, plain, aad []byte) []byte {
	w.n.mu.Lock()
	if id := [2]string{w.key, string(iv)}; w.n.seen[id] {
		w.n.repeat = fmt.Sprintf("key %s, IV %x", w.key, iv)
	} else {
		w.n.seen[id] = true
	}
	w.n.mu.Unlock()
	return w.AEAD.Seal(dst, iv, plain, aad)
}

// sealer is NewSealer under observation: the key that seals follows from data
// key and message ID, so these name it.
func (n *nonces) sealer(t *testing.T, key DataKey, frame int64) *Sealer {
	t.Helper()
	real, err := NewSealer(key, Context{}, testEDKs, frame)
	require.NoError(t, err)
	k := real.keys
	k.aead = hide[cipher.AEAD](watched{k.aead(), n, fmt.Sprintf("%x", real.header.MessageID)})
	return newSealer(real.header, k)
}

// Whatever its callers do, in whatever order and however many at once, a
// Sealer never seals two things under one key and IV.
func TestNoNonceIsUsedTwice(t *testing.T) {
	n := &nonces{seen: map[[2]string]bool{}}
	key := testKey(Committed)
	sealed := 0
	for round := range 60 {
		const frames, callers = 12, 8
		s := n.sealer(t, key, 16)
		var ok [frames]atomic.Int32
		var final atomic.Int32
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(c)))
				for range 3 * frames {
					i := r.Int64N(frames)
					plain := pattern(16)
					plain[0] = byte(c) // what two callers seal differs
					if _, err := s.Seal(nil, i, plain); err == nil {
						ok[i].Add(1)
					} else if !errors.Is(err, Sealed) {
						t.Error(err)
					}
					if r.IntN(6) == 0 {
						if _, err := s.SealFinal(nil, plain[:r.IntN(16)]); err == nil {
							final.Add(1)
						} else if !errors.Is(err, Sealed) && !errors.Is(err, Malformed) {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		sealed += 1 + int(final.Load()) // the header
		require.LessOrEqual(t, final.Load(), int32(1))
		for i := range ok {
			require.LessOrEqual(t, ok[i].Load(), int32(1), "frame %d", i)
			sealed += int(ok[i].Load())
		}
		require.Empty(t, n.repeat)
	}
	require.Len(t, n.seen, sealed, "the recorder sees every seal")
	require.Greater(t, sealed, 60*3)
}

// The recorder of the test above does find a repeat.
func TestRepeatedNonceIsNoticed(t *testing.T) {
	n := &nonces{seen: map[[2]string]bool{}}
	s := n.sealer(t, testKey(Committed), 16)
	s.body.seal(nil, 1, pattern(16), false)
	require.Empty(t, n.repeat)
	s.body.seal(nil, 1, pattern(16), true)
	require.NotEmpty(t, n.repeat)
}

func TestSealerRefuses(t *testing.T) {
	plain := pattern(17)
	seal := func(i int64, n int) func(*Sealer) error {
		return func(s *Sealer) error { _, err := s.Seal(nil, i, plain[:n]); return err }
	}
	final := func(n int) func(*Sealer) error {
		return func(s *Sealer) error { _, err := s.SealFinal(nil, plain[:n]); return err }
	}
	type steps []func(*Sealer) error
	for _, tt := range []struct {
		name  string
		first steps // without error
		last  func(*Sealer) error
		kind  Kind
		text  string
	}{
		{"a frame twice", steps{seal(0, 16)}, seal(0, 16), Sealed, "frame 0: no frame is sealed twice"},
		{"a frame out of order twice", steps{seal(7, 16)}, seal(7, 16), Sealed, "frame 7"},
		{"a frame that came early", steps{seal(1, 16), seal(0, 16)}, seal(1, 16), Sealed, "frame 1"},
		{"a frame after the end", steps{seal(0, 16), final(3)}, seal(1, 16), Sealed, "frame 1: the message has ended"},
		{"a later frame after the end", steps{final(3)}, seal(9, 16), Sealed, "frame 9: the message has ended"},
		{"two ends", steps{final(3)}, final(3), Sealed, "final frame: the message has ended"},
		{"two ends, the first one empty", steps{final(0)}, final(0), Sealed, "final frame"},
		{"an end after a gap", steps{seal(0, 16), seal(2, 16)}, final(1), Malformed, "frame 1 was not sealed"},
		{"a frame that is not full", nil, seal(0, 15), Malformed, "frame 0: 15 bytes to seal"},
		{"a frame that is too long", nil, seal(0, 17), Malformed, "17 bytes to seal"},
		{"a final frame that is too long", nil, final(17), Malformed, "final frame: 17 bytes"},
		{"a frame before the first", nil, seal(-1, 16), TooLarge, "no frame -1"},
		{"a frame with the number of the final mark", nil, seal(maxFull, 16), TooLarge, "frame 4294967294"},
		{"a frame beyond all numbers", nil, seal(maxFull+1, 16), TooLarge, "no frame 4294967295"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 16)
			require.NoError(t, err)
			for _, step := range tt.first {
				require.NoError(t, step(s))
			}
			err = tt.last(s)
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// What was refused was not sealed, and can be sealed still.
func TestRefusedFrameIsNotUsedUp(t *testing.T) {
	s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 16)
	require.NoError(t, err)
	_, err = s.Seal(nil, 0, pattern(3))
	require.ErrorIs(t, err, Malformed)
	_, err = s.SealFinal(nil, pattern(17))
	require.ErrorIs(t, err, Malformed)
	plain := pattern(16 + 5)
	msg := sealAll(t, s, plain)
	got, err := decrypt(msg, testKey(Committed), Context{})
	require.NoError(t, err)
	require.Equal(t, plain, got)
}

// Frames are sealed and opened in parallel and out of order.
func TestFramesInAnyOrder(t *testing.T) {
	const frames = 64
	plain := pattern(frames*16 + 5)
	s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 16)
	require.NoError(t, err)
	l, err := s.Profile().ForSize(int64(len(plain)))
	require.NoError(t, err)
	msg := make([]byte, l.Stored())
	copy(msg, s.Header())
	order := rand.Perm(frames)
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for _, i := range order[c*frames/4 : (c+1)*frames/4] {
				at := l.Offset(int64(i))
				if _, err := s.Seal(msg[at:at], int64(i), plain[i*16:i*16+16]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	at := l.Offset(l.Full)
	_, err = s.SealFinal(msg[at:at], plain[frames*16:])
	require.NoError(t, err)
	got, err := decrypt(msg, testKey(Committed), Context{})
	require.NoError(t, err)
	require.Equal(t, plain, got)
	require.Empty(t, s.beyond, "nothing is remembered of frames in a row")

	h, err := ParseHeader(msg)
	require.NoError(t, err)
	o, err := NewOpener(h, testKey(Committed), Context{})
	require.NoError(t, err)
	got = make([]byte, frames*16)
	for c := range 4 {
		wg.Go(func() {
			for _, i := range order[c*frames/4 : (c+1)*frames/4] {
				at := l.Offset(int64(i))
				if _, err := o.Open(got[i*16:i*16:i*16+16], int64(i), msg[at:at+l.Bytes(int64(i))]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, plain[:frames*16], got)
}

func TestSealAndOpenInPlace(t *testing.T) {
	s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 64)
	require.NoError(t, err)
	h, err := ParseHeader(s.Header())
	require.NoError(t, err)
	o, err := NewOpener(h, testKey(Committed), Context{})
	require.NoError(t, err)

	frame := make([]byte, 64+FrameOverhead)
	copy(frame[FramePrefix:], pattern(64))
	sealed, err := s.Seal(frame[:0], 0, frame[FramePrefix:FramePrefix+64])
	require.NoError(t, err)
	require.Same(t, &frame[0], &sealed[0])
	require.NotContains(t, string(sealed), string(pattern(64)))
	plain, err := o.Open(frame[FramePrefix:FramePrefix], 0, frame)
	require.NoError(t, err)
	require.Same(t, &frame[FramePrefix], &plain[0])
	require.Equal(t, pattern(64), plain)

	frame = make([]byte, 9+FinalOverhead)
	copy(frame[FinalPrefix:], pattern(9))
	sealed, err = s.SealFinal(frame[:0], frame[FinalPrefix:FinalPrefix+9])
	require.NoError(t, err)
	require.Same(t, &frame[0], &sealed[0])
	plain, err = o.OpenFinal(frame[FinalPrefix:FinalPrefix], 1, frame)
	require.NoError(t, err)
	require.Equal(t, pattern(9), plain)
}

func TestHeaderOfSealerIsACopy(t *testing.T) {
	s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 16)
	require.NoError(t, err)
	clear(s.Header())
	_, err = decrypt(sealAll(t, s, nil), testKey(Committed), Context{})
	require.NoError(t, err)
}

// Two messages with one data key have nothing in common that seals.
func TestMessagesAreTheirOwn(t *testing.T) {
	a, b := own(t, 16, pattern(16)), own(t, 16, pattern(16))
	ha, err := ParseHeader(a)
	require.NoError(t, err)
	hb, err := ParseHeader(b)
	require.NoError(t, err)
	require.NotEqual(t, ha.MessageID, hb.MessageID)
	require.NotEqual(t, ha.commitment, hb.commitment)
	require.NotEqual(t, a[ha.Bytes():], b[hb.Bytes():])
}
