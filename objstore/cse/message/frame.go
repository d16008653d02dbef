package message

import (
	"encoding/binary"
	"slices"
	"sync"
)

// What a frame's additional data calls it (data-format/message-body-aad.md;
// the length of the message ID there is wrong for format 2, it is 32 bytes).
const (
	regularAAD = "AWSKMSEncryptionClient Frame"
	finalAAD   = "AWSKMSEncryptionClient Final Frame"
	blockAAD   = "AWSKMSEncryptionClient Single Block"
)

// finalMark stands before the sequence number of the final frame.
const finalMark = 1<<32 - 1

// IsFinal reports whether a frame that begins so, with [FramePrefix] bytes, says that it
// is the final one; that it is, [Opener.OpenFinal] proves.
func IsFinal(prefix []byte) bool { return binary.BigEndian.Uint32(prefix) == finalMark }

// body seals and opens the frames of one message.
type body struct {
	keys keys
	id   []byte
	// scratch holds *[]byte for additional data, which would escape to the
	// heap once a frame.
	scratch sync.Pool
}

func (b *body) aad(kind string, seq uint32, plainBytes int) *[]byte {
	p, _ := b.scratch.Get().(*[]byte)
	if p == nil {
		a := make([]byte, 0, 32+len(blockAAD)+4+8)
		p = &a
	}
	a := append((*p)[:0], b.id...)
	a = append(a, kind...)
	a = binary.BigEndian.AppendUint32(a, seq)
	*p = binary.BigEndian.AppendUint64(a, uint64(plainBytes))
	return p
}

// sequence is the sequence number of frame i.
func sequence(i int64) (uint32, error) {
	if i < 0 || i > maxFull {
		return 0, fail(TooLarge, "message", "it can have no frame %d", i)
	}
	return uint32(i + 1), nil
}

// seal appends a frame whose IV is its sequence number; the header has IV 0.
func (b *body) seal(dst []byte, seq uint32, plain []byte, final bool) []byte {
	kind, overhead := regularAAD, FrameOverhead
	if final {
		kind, overhead = finalAAD, FinalOverhead
	}
	dst = slices.Grow(dst, overhead+len(plain))
	if final {
		dst = binary.BigEndian.AppendUint32(dst, finalMark)
	}
	dst = binary.BigEndian.AppendUint32(dst, seq)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, seq)
	iv := dst[len(dst)-ivBytes:]
	if final {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(plain)))
	}
	aad := b.aad(kind, seq, len(plain))
	dst = b.keys.aead().Seal(dst, iv, plain, *aad)
	b.scratch.Put(aad)
	return dst
}

// open appends the plaintext of ciphertext and tag.
func (b *body) open(dst []byte, kind string, seq uint32, iv, sealed []byte) ([]byte, error) {
	aad := b.aad(kind, seq, len(sealed)-tagBytes)
	dst, err := b.keys.aead().Open(dst, iv, sealed, *aad)
	b.scratch.Put(aad)
	return dst, err
}
