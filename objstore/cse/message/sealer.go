package message

import (
	"bytes"
	"crypto/rand"
	"strings"
	"sync"
)

// Sealer writes one message of the suite [Committed]. It makes the message ID,
// so that the key which seals is new, and it seals every frame once: under one
// key no IV comes twice. Whoever must send bytes again keeps them.
//
// Safe for concurrent use: frames may be sealed in any order and in parallel.
type Sealer struct {
	header *Header
	body

	mu     sync.Mutex
	next   int64              // guarded by mu: the first frame that was not sealed
	beyond map[int64]struct{} // guarded by mu: those sealed out of order, all > next
	ended  bool               // guarded by mu: the final frame was sealed
}

// NewSealer begins a message with frames of so many bytes of plaintext. The
// data keys are key as keyrings wrapped it, and the context is the one that
// they authenticated; see [PadContext] and [PadEDKs]. One data key serves for
// many messages. The Sealer keeps references to edks.
func NewSealer(key DataKey, c Context, edks []EDK, frame int64) (*Sealer, error) {
	h := &Header{Suite: Committed, MessageID: make([]byte, 32), Context: c, EDKs: edks, Frame: frame}
	rand.Read(h.MessageID) // never fails: see crypto/rand
	if err := h.writable(); err != nil {
		return nil, err
	}
	k, err := derive(h.Suite, h.MessageID, key)
	if err != nil {
		return nil, err
	}
	return newSealer(h, k), nil
}

// writable refuses what could not be read again.
func (h *Header) writable() error {
	for name := range h.Context.All() {
		if strings.HasPrefix(name, reservedPrefix) {
			return fail(Malformed, "encryption context", "the name %q is reserved", name)
		}
	}
	switch {
	case len(h.EDKs) == 0:
		return fail(Malformed, "header", "no encrypted data key: nobody could read it")
	case len(h.EDKs) > MaxEDKs:
		return fail(TooLarge, "header", "%d encrypted data keys, at most %d are read", len(h.EDKs), MaxEDKs)
	case h.Frame < 1 || h.Frame > MaxFrame:
		return fail(TooLarge, "header", "frames of %d bytes, 1 to %d are read", h.Frame, MaxFrame)
	}
	const most = 1<<16 - 1
	for i, e := range h.EDKs {
		if len(e.Provider) > most || len(e.Info) > most || len(e.Ciphertext) > most {
			return fail(TooLarge, "header", "encrypted data key %d has a field of more than %d bytes", i, most)
		}
	}
	if n := committedHeaderBytes(h.Context, edkBytes(h.EDKs)); n > MaxHeader {
		return fail(TooLarge, "header", "%d bytes, at most %d are read", n, MaxHeader)
	}
	return nil
}

// newSealer seals the header, with IV 0.
func newSealer(h *Header, k keys) *Sealer {
	h.commitment, h.iv = k.commitment, make([]byte, ivBytes)
	h.raw = appendHeader(nil, h)
	h.signed = len(h.raw)
	h.tag = k.aead().Seal(nil, h.iv, nil, headerAAD(h, Context{}))
	h.raw = append(h.raw, h.tag...)
	return &Sealer{header: h, body: body{keys: k, id: h.MessageID}, beyond: map[int64]struct{}{}}
}

// Header returns the header, which comes first in the message; a copy.
func (s *Sealer) Header() []byte { return bytes.Clone(s.header.raw) }

// Profile says how long header and frames are.
func (s *Sealer) Profile() Profile { return Profile{Header: s.header.Bytes(), Frame: s.header.Frame} }

// Seal appends frame i to dst, in the form that it has in the message. plain
// has all the bytes of a frame. Sealed is the error for a frame that was
// sealed before, and for any after SealFinal. One that is sealed before its
// turn is remembered until those before it have been.
//
// A buffer is sealed in place when plain begins [FramePrefix] bytes after the
// end of dst in the same array; otherwise the two must not overlap.
func (s *Sealer) Seal(dst []byte, i int64, plain []byte) ([]byte, error) {
	if int64(len(plain)) != s.header.Frame {
		return nil, fail(Malformed, frameName(i), "%d bytes to seal, all frames but the final one have %d", len(plain), s.header.Frame)
	}
	seq, err := sequence(i)
	if err == nil && seq == finalMark {
		err = fail(TooLarge, frameName(i), "only a final frame can have this number")
	}
	if err != nil {
		return nil, err
	}
	if err := s.claim(i); err != nil {
		return nil, err
	}
	return s.seal(dst, seq, plain, false), nil
}

// claim notes that frame i is sealed, once.
func (s *Sealer) claim(i int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.beyond[i]; ok || i < s.next {
		return fail(Sealed, frameName(i), "no frame is sealed twice")
	}
	if s.ended {
		return fail(Sealed, frameName(i), "the message has ended")
	}
	s.beyond[i] = struct{}{}
	for {
		if _, ok := s.beyond[s.next]; !ok {
			return nil
		}
		delete(s.beyond, s.next)
		s.next++
	}
}

// SealFinal appends the final frame to dst. plain is what is left, from no
// bytes to all those of a frame. All frames before it must have been sealed.
//
// A buffer is sealed in place when plain begins [FinalPrefix] bytes after the
// end of dst in the same array; otherwise the two must not overlap.
func (s *Sealer) SealFinal(dst, plain []byte) ([]byte, error) {
	if int64(len(plain)) > s.header.Frame {
		return nil, fail(Malformed, "final frame", "%d bytes to seal, a frame has %d", len(plain), s.header.Frame)
	}
	seq, err := s.end()
	if err != nil {
		return nil, err
	}
	return s.seal(dst, seq, plain, true), nil
}

// end notes that the message has ended.
func (s *Sealer) end() (seq uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, fail(Sealed, "final frame", "the message has ended")
	}
	if len(s.beyond) > 0 {
		return 0, fail(Malformed, "final frame", "frame %d was not sealed, and later ones were", s.next)
	}
	seq, err = sequence(s.next)
	s.ended = err == nil
	return seq, err
}
