package message

import (
	"encoding/binary"
	"fmt"
)

const (
	// BlockPrefix is what comes before the ciphertext of a message without
	// frames, BlockOverhead what its body takes beyond the plaintext.
	BlockPrefix   = ivBytes + 8
	BlockOverhead = BlockPrefix + tagBytes

	// maxBlock is the most that AES-GCM seals under one IV (NIST SP 800-38D).
	maxBlock = 1<<36 - 32
)

// OpenBlock appends the plaintext of a message without frames to dst (Python's
// frame_length=0):
//
//	IV 12 | u64 n | ciphertext n | tag 16
//
// rest is all that follows the header. Behind the body comes the footer in
// suites that have one: it begins BlockOverhead + n bytes into rest. Nothing
// of the plaintext can be trusted before all of it has been read, so that one
// of more than limit bytes is TooLarge. Where rest ends within the body, the
// error is Short.
//
// The block is opened in place when dst is rest[BlockPrefix:BlockPrefix];
// otherwise the two must not overlap.
func (o *Opener) OpenBlock(dst, rest []byte, limit int64) ([]byte, error) {
	const part = "block"
	if o.header.Frame != 0 {
		return nil, fail(Malformed, "message", "it has frames of %d bytes, and no single block", o.header.Frame)
	}
	short := func(need int64) error {
		return &Error{Kind: Short, Part: part, Offset: -1, Need: need, Text: fmt.Sprintf("%d bytes, there are %d", need, len(rest))}
	}
	if len(rest) < BlockPrefix {
		return nil, short(BlockPrefix)
	}
	n := binary.BigEndian.Uint64(rest[ivBytes:])
	if limit = max(0, min(limit, maxBlock)); n > uint64(limit) {
		return nil, fail(TooLarge, part, "%d bytes, at most %d are read", n, limit)
	}
	end := BlockOverhead + int64(n)
	if int64(len(rest)) < end {
		return nil, short(end)
	}
	if o.public == nil && int64(len(rest)) > end {
		return nil, fail(Malformed, part, "%d bytes after its end", int64(len(rest))-end)
	}
	plain, err := o.open(dst, blockAAD, 1, rest[:ivBytes], rest[BlockPrefix:end])
	if err != nil {
		return nil, fail(Unauthentic, part, "its tag does not fit")
	}
	return plain, nil
}
