package cse

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// maxUnframed is how long a message without frames may be: nothing of it can be trusted
// before all of it was read.
const maxUnframed = 64 << 20

// Encrypt writes one message of all that r holds to w, as Coffer writes objects, for
// the keys of ring.
func Encrypt(ctx context.Context, ring *keyring.Ring, c message.Context, w io.Writer, r io.Reader) error {
	e, err := ring.Wrap(ctx, c)
	if err != nil {
		return err
	}
	s, err := message.NewSealer(e.Key, e.Context, e.EDKs, message.Own.Frame)
	if err != nil {
		return err
	}
	if _, err := w.Write(s.Header()); err != nil {
		return err
	}
	plain, sealed := make([]byte, message.Own.Frame), make([]byte, 0, message.Own.Frame+message.FinalOverhead)
	for i := int64(0); ; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, plain)
		last := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !last {
			return err
		}
		if last {
			sealed, err = s.SealFinal(sealed[:0], plain[:n])
		} else {
			sealed, err = s.Seal(sealed[:0], i, plain)
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(sealed); err != nil || last {
			return err
		}
	}
}

// Decrypt writes the plaintext of the message that r holds to w. Every frame is
// authentic before it is written; the last one is held back until the signature, where
// there is one, was verified: a message that was cut or forged never looks whole. With
// anySuite it need not commit to its key.
func Decrypt(ctx context.Context, ring *keyring.Ring, anySuite bool, w io.Writer, r io.Reader) error {
	in := bufio.NewReaderSize(r, message.MaxHeader)
	o, err := openStream(ctx, ring, anySuite, in)
	if err != nil {
		return err
	}
	verified := io.Writer(io.Discard)
	var v *message.Verifier
	if o.Header().Suite.Signed() {
		if v, err = o.Verifier(); err != nil {
			return err
		}
		verified = v
	}
	// What is read goes to the signature as well.
	body := io.TeeReader(in, verified)
	var last []byte
	if o.Header().Frame == 0 {
		last, err = openBlock(o, body)
	} else {
		last, err = openFrames(ctx, o, w, body)
	}
	if err != nil {
		return err
	}
	footer, err := io.ReadAll(io.LimitReader(in, maxFooter+1))
	if err != nil {
		return err
	}
	switch {
	case v != nil:
		err = v.Verify(footer)
	case len(footer) > 0:
		err = errors.New("there is something behind the end of the message")
	}
	if err == nil {
		_, err = w.Write(last)
	}
	return err
}

// maxFooter is more bytes than any signature takes.
const maxFooter = 1 << 10

// openStream reads the header, and leaves what follows it in in.
func openStream(ctx context.Context, ring *keyring.Ring, anySuite bool, in *bufio.Reader) (*message.Opener, error) {
	o, _, err := openHeader(ctx, ring, anySuite, func(n int) ([]byte, error) {
		first, err := in.Peek(n)
		if err == io.EOF {
			err = nil
		}
		return first, err
	})
	if err == nil {
		_, err = in.Discard(int(o.Header().Bytes()))
	}
	return o, err
}

// openFrames writes all regular frames, and returns the plaintext of the final one.
func openFrames(ctx context.Context, o *message.Opener, w io.Writer, body io.Reader) ([]byte, error) {
	frame := make([]byte, 0, min(o.Header().Frame, 64<<10)+message.FinalOverhead)
	for i := int64(0); ; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		frame = frame[:message.FramePrefix]
		if err := readFrame(body, frame, i); err != nil {
			return nil, err
		}
		if message.IsFinal(frame) {
			frame = frame[:message.FinalPrefix]
			if err := readFrame(body, frame[message.FramePrefix:], i); err != nil {
				return nil, err
			}
			n := int64(binary.BigEndian.Uint32(frame[message.FinalPrefix-4:]))
			if n > o.Header().Frame {
				return nil, fmt.Errorf("the final frame has %d bytes, a frame %d", n, o.Header().Frame)
			}
			var err error
			if frame, err = readMore(body, frame, n+message.FinalOverhead, i); err != nil {
				return nil, err
			}
			return o.OpenFinal(nil, i, frame)
		}
		var err error
		if frame, err = readMore(body, frame, o.Header().Frame+message.FrameOverhead, i); err != nil {
			return nil, err
		}
		plain, err := o.Open(frame[message.FramePrefix:message.FramePrefix], i, frame)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(plain); err != nil {
			return nil, err
		}
	}
}

// readMore makes a frame, of which some is there, n bytes long. Its memory grows with
// what comes: what it says of its length nobody has authenticated.
func readMore(body io.Reader, frame []byte, n, i int64) ([]byte, error) {
	const step = 1 << 20
	for int64(len(frame)) < n {
		from := len(frame)
		frame = append(frame, make([]byte, min(n-int64(from), step))...)
		if err := readFrame(body, frame[from:], i); err != nil {
			return nil, err
		}
	}
	return frame, nil
}

// readFrame fills p with bytes of frame i.
func readFrame(body io.Reader, p []byte, i int64) error {
	_, err := io.ReadFull(body, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the message is cut off in frame %d", i)
	}
	return err
}

// openBlock reads a message without frames, whose length is in it.
func openBlock(o *message.Opener, body io.Reader) ([]byte, error) {
	head, err := readMore(body, nil, message.BlockPrefix, 0)
	if err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint64(head[message.BlockPrefix-8:])
	if n > maxUnframed {
		return nil, fmt.Errorf("a message without frames of %d bytes, at most %d are read", n, maxUnframed)
	}
	all, err := readMore(body, head, int64(n)+message.BlockOverhead, 0)
	if err != nil {
		return nil, err
	}
	return o.OpenBlock(nil, all, maxUnframed)
}
