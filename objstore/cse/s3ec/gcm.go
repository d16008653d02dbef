package s3ec

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"slices"

	"coffer/objstore/cse/message"
)

const (
	// BlockBytes is the unit in which a verified object is read: block i are
	// the BlockBytes bytes of the object at i*BlockBytes, of plaintext as of
	// ciphertext; the last one may be shorter, and the tag is in none.
	BlockBytes = 1 << 20

	// maxSize is the most that AES-GCM seals under one IV (NIST SP 800-38D).
	maxSize = 1<<36 - 32

	// stride is how much is hashed at once, twice: what one hash has read is
	// still in the processor's cache for the other.
	stride = 256 << 10
)

// content is what an object is sealed with.
type content struct {
	block cipher.Block
	iv    []byte
	size  int64 // of the plaintext
	// sums has the SHA-256 of the ciphertext of each block.
	sums [][sha256.Size]byte
}

// Verifier takes all of an object once, in order, and then says whether it is
// authentic. It decrypts nothing. It keeps 32 bytes for each block, and none
// of the object. Not safe for concurrent use.
type Verifier struct {
	content content
	taken   int64 // bytes of the object, its tag among them
	ghash   *ghash
	sum     hash.Hash // of the block that is being taken
	tag     [tagBytes]byte
}

// NewVerifier begins the verification of an object of stored bytes, its tag
// included, with the data key that one of the methods Unwrap... returned.
//
// The error is Unauthentic where the envelope commits to another data key (V3
// alone does), and else that of [Envelope.Size].
func NewVerifier(e *Envelope, key message.DataKey, stored int64) (*Verifier, error) {
	size, err := e.Size(stored)
	if err != nil {
		return nil, err
	}
	k, iv, aad, err := e.derive(key)
	if err != nil {
		return nil, err
	}
	return newVerifier(k, iv, aad, size)
}

// NewContentVerifier begins the verification of what is sealed in the same way by
// another format: a ciphertext of size bytes and then its tag, by AES-GCM with
// a key of 16, 24 or 32 bytes, an IV of 12 and any AAD.
func NewContentVerifier(key message.DataKey, iv, aad []byte, size int64) (*Verifier, error) {
	switch {
	case len(iv) != ivBytes:
		return nil, fail(message.Malformed, objectPart, "an IV of %d bytes, not %d", len(iv), ivBytes)
	case size < 0 || size > maxSize:
		return nil, fail(message.TooLarge, objectPart, "%d bytes, AES-GCM seals %d at most", size, int64(maxSize))
	}
	return newVerifier(key.Bytes(), iv, aad, size)
}

func newVerifier(key, iv, aad []byte, size int64) (*Verifier, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	g, err := newGHASH(block, iv, aad)
	if err != nil {
		return nil, err
	}
	return &Verifier{content: content{block: block, iv: iv, size: size}, ghash: g, sum: sha256.New()}, nil
}

// Write takes the next bytes of the object as it is stored, any number of
// them, and keeps none. It is fastest in pieces of 64 KiB and more. The error
// is Malformed, and nothing is taken, where the object goes on beyond what
// NewVerifier was told.
func (v *Verifier) Write(p []byte) (int, error) {
	c := &v.content
	if left := c.size + tagBytes - v.taken; int64(len(p)) > left {
		return 0, fail(message.Malformed, objectPart, "it goes on after %d bytes", c.size+tagBytes)
	}
	n := len(p)
	for len(p) > 0 && v.taken < c.size {
		piece := p[:min(int64(len(p)), stride-v.taken%stride, c.size-v.taken)]
		v.ghash.write(piece)
		v.sum.Write(piece)
		v.taken += int64(len(piece))
		if v.taken%BlockBytes == 0 || v.taken == c.size {
			c.sums = append(c.sums, [sha256.Size]byte(v.sum.Sum(nil)))
			v.sum.Reset()
		}
		p = p[len(piece):]
	}
	if len(p) > 0 {
		copy(v.tag[v.taken-c.size:], p)
		v.taken += int64(len(p))
	}
	return n, nil
}

// Finish compares the tag. The error is Unauthentic where the object is not
// what was sealed with this key, and Short where it was not written to its
// end; the rest can still be written then.
func (v *Verifier) Finish() (*Verified, error) {
	stored := v.content.size + tagBytes
	if v.taken < stored {
		return nil, &message.Error{Kind: message.Short, Part: objectPart, Offset: v.taken, Need: stored, Text: "the rest was not read"}
	}
	if want := v.ghash.finish(stored - tagBytes); subtle.ConstantTimeCompare(v.tag[:], want[:]) != 1 {
		return nil, fail(message.Unauthentic, objectPart, "its tag is not the one of this data key")
	}
	return &Verified{content: v.content}, nil
}

// Verified is an object that has been verified as a whole. It opens its blocks
// one by one, in any order, from bytes that may have been fetched again: it
// knows each block by its SHA-256. It holds the key of the object, and 32
// bytes for each block. Immutable, and safe for concurrent use.
type Verified struct{ content content }

// Size is the length of the plaintext.
func (v *Verified) Size() int64 { return v.content.size }

// Blocks is the number of blocks; an empty object has none.
func (v *Verified) Blocks() int64 { return int64(len(v.content.sums)) }

// Range returns where block i begins and how many bytes it has, in the
// plaintext as in the stored object. There are none beyond the last block.
func (v *Verified) Range(i int64) (off, n int64) {
	if i < 0 || i >= v.Blocks() {
		return 0, 0
	}
	off = i * BlockBytes
	return off, min(BlockBytes, v.content.size-off)
}

// Open appends the plaintext of block i to dst, and allocates next to nothing
// when dst has room for it. block is all of the block as it is stored, at
// [Verified.Range]. The error is Unauthentic where it is not the block that
// was verified, and dst is untouched then.
//
// A block is opened in place, over its own bytes, when dst is block[:0];
// otherwise the two must not overlap.
func (v *Verified) Open(dst []byte, i int64, block []byte) ([]byte, error) {
	const part = "block"
	c := &v.content
	switch _, n := v.Range(i); {
	case n == 0:
		return nil, fail(message.Malformed, part, "there is no number %d, the object has %d", i, v.Blocks())
	case int64(len(block)) != n:
		return nil, fail(message.Malformed, part, "number %d has %d bytes, these are %d", i, n, len(block))
	}
	if sha256.Sum256(block) != c.sums[i] {
		return nil, fail(message.Unauthentic, part, "number %d is not what was verified", i)
	}
	at := len(dst)
	dst = slices.Grow(dst, len(block))[:at+len(block)]
	// No overflow: maxSize has less than 2^32-2 blocks of AES.
	iv := counter(c.iv, 2+uint32(i)*(BlockBytes/blockBytes))
	cipher.NewCTR(c.block, iv[:]).XORKeyStream(dst[at:], block)
	return dst, nil
}
