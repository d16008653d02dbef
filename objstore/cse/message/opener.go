package message

import (
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
)

// Opener reads one message. That there is one says that the header is
// authentic and belongs to the data key. Safe for concurrent use.
//
// Each frame is authenticated as the one at its place in this message. How
// many there are is proved by the final frame alone: see [Opener.Locate].
type Opener struct {
	header *Header
	body
	public *ecdsa.PublicKey // of the signature; nil in suites without
}

// NewOpener authenticates a header with a data key that a keyring has
// unwrapped. required are the entries of the encryption context that are
// authenticated and not stored in the header (the specification's "required
// encryption context"); commonly there are none. Where the data key is another
// one or anything in the header was changed, the error is Unauthentic.
//
// Whether suites are acceptable that do not commit to the key is the caller's
// decision: [Suite.Committing].
func NewOpener(h *Header, key DataKey, required Context) (*Opener, error) {
	if _, err := h.Context.Join(required); err != nil {
		return nil, err
	}
	k, err := derive(h.Suite, h.MessageID, key)
	if err != nil {
		return nil, err
	}
	if err := k.verify(h, required); err != nil {
		return nil, err
	}
	public, err := publicKey(h)
	if err != nil {
		return nil, err
	}
	return &Opener{header: h, body: body{keys: k, id: h.MessageID}, public: public}, nil
}

// Header returns the authentic header. Not to be changed.
func (o *Opener) Header() *Header { return o.header }

// Open appends the plaintext of regular frame i to dst, and allocates nothing
// when dst has room for it. frame is all of the frame, of [Layout.Bytes] bytes
// at [Layout.Offset]. After an error the room in dst may have been cleared.
//
// A frame is opened in place, over its own bytes, when dst is
// frame[FramePrefix:FramePrefix]; otherwise the two must not overlap.
func (o *Opener) Open(dst []byte, i int64, frame []byte) ([]byte, error) {
	seq, err := o.sequence(i)
	if err != nil {
		return nil, err
	}
	if want := o.header.Frame + FrameOverhead; int64(len(frame)) != want {
		return nil, fail(Malformed, frameName(i), "%d bytes, a regular frame has %d", len(frame), want)
	}
	switch got := binary.BigEndian.Uint32(frame); {
	case IsFinal(frame):
		return nil, fail(Malformed, frameName(i), "a final frame where a regular one must be")
	case got != seq:
		return nil, fail(Malformed, frameName(i), "sequence number %d, not %d", got, seq)
	}
	plain, err := o.open(dst, regularAAD, seq, frame[4:FramePrefix], frame[FramePrefix:])
	if err != nil {
		return nil, fail(Unauthentic, frameName(i), "its tag does not fit")
	}
	return plain, nil
}

// OpenFinal appends the plaintext of the final frame to dst, as Open does for
// a regular one, with [FinalPrefix] in the place of FramePrefix. It is a proof
// that the message has i regular frames and nothing after frame.
func (o *Opener) OpenFinal(dst []byte, i int64, frame []byte) ([]byte, error) {
	const part = "final frame"
	seq, err := o.sequence(i)
	if err != nil {
		return nil, err
	}
	if len(frame) < FinalOverhead {
		return nil, fail(Malformed, part, "%d bytes, a final frame has %d at least", len(frame), FinalOverhead)
	}
	mark, got := binary.BigEndian.Uint32(frame), binary.BigEndian.Uint32(frame[4:])
	n := int64(binary.BigEndian.Uint32(frame[FinalPrefix-4:]))
	switch {
	case mark != finalMark:
		return nil, fail(Malformed, part, "it does not begin as a final frame: the message is cut short, or goes on")
	case got != seq:
		return nil, fail(Malformed, part, "sequence number %d, not %d", got, seq)
	case n > o.header.Frame:
		return nil, fail(Malformed, part, "%d bytes, a frame has %d", n, o.header.Frame)
	case n != int64(len(frame)-FinalOverhead):
		return nil, fail(Malformed, part, "%d bytes, there are %d", n, len(frame)-FinalOverhead)
	}
	plain, err := o.open(dst, finalAAD, seq, frame[8:FinalPrefix-4], frame[FinalPrefix:])
	if err != nil {
		return nil, fail(Unauthentic, part, "its tag does not fit")
	}
	return plain, nil
}

// sequence is the sequence number of frame i.
func (o *Opener) sequence(i int64) (uint32, error) {
	if o.header.Frame == 0 {
		return 0, fail(Malformed, "message", "a single block, which has no frames")
	}
	return sequence(i)
}

// Locate opens the final frame and returns the layout of the message, which
// that proves. stored is the length of the message in bytes, and tail the last
// bytes of it. The plaintext of the final frame is appended to dst, which does
// not overlap tail.
//
// Where tail does not reach back to the final frame, the error is Short, and
// its Need, at most stored, is how long tail must be.
func (o *Opener) Locate(dst []byte, stored int64, tail []byte) (Layout, []byte, error) {
	if _, err := o.sequence(0); err != nil {
		return Layout{}, nil, err
	}
	footers, err := o.footers(stored, tail)
	if err != nil {
		return Layout{}, nil, err
	}
	var failed, short error
	for _, footer := range footers {
		l, plain, err := o.locate(dst, stored, tail, footer)
		switch {
		case err == nil:
			return l, plain, nil
		case errors.Is(err, Short):
			short = err
		default:
			failed = err
		}
	}
	if short != nil { // a longer tail may hold what this one does not
		return Layout{}, nil, short
	}
	return Layout{}, nil, failed
}

// locate opens the final frame of a message whose footer is so long.
func (o *Opener) locate(dst []byte, stored int64, tail []byte, footer int64) (Layout, []byte, error) {
	l, err := Profile{Header: o.header.Bytes(), Frame: o.header.Frame, Footer: footer}.ForStored(stored)
	if err != nil {
		return Layout{}, nil, err
	}
	back := stored - l.Offset(l.Full) // from the end to the begin of the frame
	if back > int64(len(tail)) {
		return Layout{}, nil, &Error{Kind: Short, Part: "final frame", Offset: -1, Need: back,
			Text: fmt.Sprintf("it begins %d bytes before the end, there are %d", back, len(tail))}
	}
	at := int64(len(tail)) - back
	plain, err := o.OpenFinal(dst, l.Full, tail[at:at+l.Bytes(l.Full)])
	return l, plain, err
}
