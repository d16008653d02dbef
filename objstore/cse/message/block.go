package message

import (
	"bytes"
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

	blockPart = "block"
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
	n, err := o.blockSize(rest, limit)
	if err != nil {
		return nil, err
	}
	end := BlockOverhead + n
	if int64(len(rest)) < end {
		return nil, shortBlock(rest, end)
	}
	if o.public == nil && int64(len(rest)) > end {
		return nil, fail(Malformed, blockPart, "%d bytes after its end", int64(len(rest))-end)
	}
	plain, err := o.open(dst, blockAAD, 1, rest[:ivBytes], rest[BlockPrefix:end])
	if err != nil {
		return nil, fail(Unauthentic, blockPart, "its tag does not fit")
	}
	return plain, nil
}

// Block is how the body of a message without frames is sealed, for who has no room for
// all of it: AES-GCM of Size bytes, behind the BlockPrefix and before the tag.
type Block struct {
	Key     DataKey // of the body, of 16, 24 or 32 bytes
	IV, AAD []byte
	Size    int64
}

// Block returns how the body is sealed that begins with rest, of which BlockPrefix bytes
// are enough. The header is authentic; whether the body is, and is so long, only its tag
// can tell.
func (o *Opener) Block(rest []byte) (Block, error) {
	n, err := o.blockSize(rest, maxBlock)
	if err != nil {
		return Block{}, err
	}
	return Block{
		Key: NewDataKey(o.keys.seal()), IV: bytes.Clone(rest[:ivBytes]), Size: n,
		AAD: bytes.Clone(*o.aad(blockAAD, 1, int(n))),
	}, nil
}

// blockSize is how long a block says that it is.
func (o *Opener) blockSize(rest []byte, limit int64) (int64, error) {
	if o.header.Frame != 0 {
		return 0, fail(Malformed, "message", "it has frames of %d bytes, and no single block", o.header.Frame)
	}
	if len(rest) < BlockPrefix {
		return 0, shortBlock(rest, BlockPrefix)
	}
	n := binary.BigEndian.Uint64(rest[ivBytes:])
	if limit = max(0, min(limit, maxBlock)); n > uint64(limit) {
		return 0, fail(TooLarge, blockPart, "%d bytes, at most %d are read", n, limit)
	}
	return int64(n), nil
}

func shortBlock(rest []byte, need int64) error {
	return &Error{Kind: Short, Part: blockPart, Offset: -1, Need: need, Text: fmt.Sprintf("%d bytes, there are %d", need, len(rest))}
}
