package message

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The limits of what is read. The format allows more of each.
const (
	// MaxHeader is the longest header in bytes: a reader needs no more than
	// that to have all of it.
	MaxHeader = 64 << 10
	// MaxFrame is the longest frame in bytes of plaintext, since a frame is
	// the least that can be read.
	MaxFrame = 64 << 20
	// MaxEDKs is how many encrypted data keys a header may have.
	MaxEDKs = 256
)

const (
	tagBytes        = 16
	ivBytes         = 12
	commitmentBytes = 32

	contentBlock  = 1 // unframed
	contentFrames = 2
)

// EDK is an encrypted data key: the data key as one keyring wrapped it.
type EDK struct {
	// Provider is "aws-kms", or the namespace of a raw key.
	Provider string
	// Info says which key of the provider's: a key ARN, or the name of a raw
	// key (raw AES appends binary fields).
	Info       string
	Ciphertext []byte
}

// Bytes is the length in a header.
func (e EDK) Bytes() int { return 6 + len(e.Provider) + len(e.Info) + len(e.Ciphertext) }

// Header is the header of a message, as it is written there: nothing of it is
// authentic before [NewOpener] has said so. Not to be changed; safe for
// concurrent use.
type Header struct {
	Suite Suite
	// MessageID is random, 16 bytes in format 1 and 32 in format 2.
	MessageID []byte
	Context   Context
	EDKs      []EDK
	// Frame is the length of a frame's plaintext in bytes; 0 when the message
	// is a single block (see [Opener.OpenBlock]).
	Frame int64

	raw        []byte // all of it
	signed     int    // how much of raw the tag authenticates
	commitment []byte // format 2
	iv, tag    []byte
}

// Bytes is the length of the header, H.
func (h *Header) Bytes() int64 { return int64(len(h.raw)) }

// Raw returns the header as it is in the message. Not to be changed.
func (h *Header) Raw() []byte { return h.raw }

// ParseHeader parses the header of a message, given the message or the first
// bytes of it. Where they end within the header, the error is Short and its
// Need more than len(prefix), and no more than [MaxHeader]. The header holds
// no reference to prefix.
func ParseHeader(prefix []byte) (*Header, error) {
	if !sniff(prefix) {
		if sniffBase64(prefix) {
			return nil, fail(NotMessage, "header", "this is an encrypted message in base64, which must be decoded first")
		}
		return nil, fail(NotMessage, "header", "the first bytes are those of something else")
	}
	r := &reader{p: prefix, end: MaxHeader, item: none}
	h := &Header{iv: make([]byte, ivBytes)}
	if err := h.parse(r); err != nil {
		return nil, err
	}
	h.raw = bytes.Clone(prefix[:r.off])
	return h, nil
}

func (h *Header) parse(r *reader) error {
	version, err := r.u8("version")
	if err != nil {
		return err
	}
	if version == 1 {
		if _, err := r.u8("type"); err != nil { // 0x80: sniffed
			return err
		}
	}
	id, err := r.u16("suite")
	if err != nil {
		return err
	}
	h.Suite = Suite(id)
	if h.MessageID, err = r.clone(suites[h.Suite].idBytes(), "message ID"); err != nil {
		return err
	}
	if err := h.parseContext(r); err != nil {
		return err
	}
	if err := h.parseEDKs(r); err != nil {
		return err
	}
	at := r.off
	content, err := r.u8("content type")
	if err != nil {
		return err
	}
	if content != contentBlock && content != contentFrames {
		return r.malformed(at, "content type %d", content)
	}
	if version == 1 {
		if err := r.zero("reserved bytes"); err != nil {
			return err
		}
		at := r.off
		if n, err := r.u8("length of the IV"); err != nil {
			return err
		} else if n != ivBytes {
			return r.malformed(at, "IV of %d bytes, not %d", n, ivBytes)
		}
	}
	at = r.off
	frame, err := r.u32("frame length")
	if err != nil {
		return err
	}
	switch {
	case content == contentFrames && frame == 0:
		return r.malformed(at, "frames of 0 bytes")
	case content == contentBlock && frame != 0:
		return r.malformed(at, "frames of %d bytes in a message without frames", frame)
	case frame > MaxFrame:
		return &Error{Kind: TooLarge, Part: "header", Offset: int64(at), Text: fmt.Sprintf("frames of %d bytes, at most %d are read", frame, MaxFrame)}
	}
	h.Frame = int64(frame)
	if version == 1 {
		h.signed = r.off
		if h.iv, err = r.clone(ivBytes, "IV"); err != nil {
			return err
		}
	} else {
		if h.commitment, err = r.clone(commitmentBytes, "commitment"); err != nil {
			return err
		}
		h.signed = r.off
	}
	h.tag, err = r.clone(tagBytes, "tag")
	return err
}

func (h *Header) parseContext(r *reader) error {
	n, err := r.u16("length of the encryption context")
	if err != nil || n == 0 {
		return err
	}
	start := r.off
	if _, err := r.take(int(n), "encryption context"); err != nil {
		return err
	}
	h.Context, err = parseContext(&reader{p: r.p[:r.off], off: start, end: r.off, item: none, part: "encryption context"})
	return err
}

func (h *Header) parseEDKs(r *reader) error {
	at := r.off
	count, err := r.u16("number of data keys")
	if err != nil {
		return err
	}
	if count == 0 {
		return r.malformed(at, "no encrypted data key")
	}
	if count > MaxEDKs {
		return &Error{Kind: TooLarge, Part: "header", Offset: int64(at), Text: fmt.Sprintf("%d encrypted data keys, at most %d are read", count, MaxEDKs)}
	}
	for i := range count {
		r.item = int(i)
		provider, err := r.field("provider of data key")
		if err != nil {
			return err
		}
		info, err := r.field("provider info of data key")
		if err != nil {
			return err
		}
		ciphertext, err := r.field("ciphertext of data key")
		if err != nil {
			return err
		}
		h.EDKs = append(h.EDKs, EDK{string(provider), string(info), bytes.Clone(ciphertext)})
	}
	r.item = none
	return nil
}

// appendHeader appends a header of format 2 up to its tag.
func appendHeader(dst []byte, h *Header) []byte {
	dst = append(dst, 2)
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Suite))
	dst = append(dst, h.MessageID...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Context.bytes()))
	dst = h.Context.Append(dst)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(h.EDKs)))
	for _, e := range h.EDKs {
		dst = appendField(dst, e.Provider)
		dst = appendField(dst, e.Info)
		dst = appendField(dst, e.Ciphertext)
	}
	dst = append(dst, contentFrames)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.Frame))
	return append(dst, h.commitment...)
}

// committedHeaderBytes is the length of a header of the suite that Coffer
// writes, with so many bytes of data keys.
func committedHeaderBytes(c Context, edkBytes int) int {
	return 1 + 2 + 32 + 2 + c.bytes() + 2 + edkBytes + 1 + 4 + commitmentBytes + tagBytes
}

func edkBytes(edks []EDK) int {
	n := 0
	for _, e := range edks {
		n += e.Bytes()
	}
	return n
}

// reader takes fields from the front of p and says what is missing.
type reader struct {
	p   []byte
	off int
	end int // where the part must end
	// item is the number of the data key or entry that is read, or none; for
	// errors.
	item int
	// part is set for a part of the header whose length is known, and which
	// p therefore holds to its end.
	part string
}

const none = -1

// take returns the next n bytes, which are p's.
func (r *reader) take(n int, what string) ([]byte, error) {
	end := r.off + n
	if end <= r.end && end <= len(r.p) {
		p := r.p[r.off:end]
		r.off = end
		return p, nil
	}
	if r.item != none {
		what = fmt.Sprintf("%s %d", what, r.item)
	}
	switch {
	case end > r.end && r.part != "":
		return nil, r.malformed(r.off, "the %s ends before the %s", r.part, what)
	case end > r.end:
		return nil, &Error{Kind: TooLarge, Part: "header", Offset: int64(r.off),
			Text: fmt.Sprintf("the %s ends at byte %d, headers are read to %d", what, end, r.end)}
	default:
		return nil, &Error{Kind: Short, Part: "header", Offset: int64(r.off), Need: int64(end),
			Text: fmt.Sprintf("the %s ends at byte %d, there are %d", what, end, len(r.p))}
	}
}

func (r *reader) u8(what string) (byte, error) {
	p, err := r.take(1, what)
	if err != nil {
		return 0, err
	}
	return p[0], nil
}

func (r *reader) u16(what string) (uint16, error) {
	p, err := r.take(2, what)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(p), nil
}

func (r *reader) u32(what string) (uint32, error) {
	p, err := r.take(4, what)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(p), nil
}

// zero takes the four reserved bytes.
func (r *reader) zero(what string) error {
	at := r.off
	v, err := r.u32(what)
	if err == nil && v != 0 {
		return r.malformed(at, "the %s are %d, not 0", what, v)
	}
	return err
}

// field takes a u16 length and that many bytes, which are p's.
func (r *reader) field(what string) ([]byte, error) {
	n, err := r.u16(what)
	if err != nil {
		return nil, err
	}
	return r.take(int(n), what)
}

func (r *reader) clone(n int, what string) ([]byte, error) {
	p, err := r.take(n, what)
	return bytes.Clone(p), err
}

func (r *reader) malformed(at int, format string, args ...any) error {
	return &Error{Kind: Malformed, Part: "header", Offset: int64(at), Text: fmt.Sprintf(format, args...)}
}
