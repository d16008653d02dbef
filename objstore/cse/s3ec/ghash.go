package s3ec

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// # Whole-object GCM in constant memory
//
// The standard library opens a ciphertext of AES-GCM as a whole, in memory.
// Here it is taken in segments, each by the standard library's own GHASH, and
// the results are put together. NIST SP 800-38D: in GF(2^128), with addition
// XOR and H = E(K, 0), for AAD A and ciphertext C, both padded with zeros to
// blocks X1...Xn together, and L = u64 bits of A || u64 bits of C,
//
//	GHASH(A, C) = X1·H^(n+1) + X2·H^n + ... + Xn·H^2 + L·H
//	tag         = GHASH(A, C) + mask        mask = E(K, IV || 00000001)
//
// Write P for the sum without the length: P(X1...Xn) = X1·H^(n+1) + ... +
// Xn·H^2. It is linear, so that for two segments x and y, y of m blocks,
//
//	P(x y) = P(x)·H^m + P(y)                                            (1)
//
// The standard library gives P of a segment: its tag with the segment as AAD
// and no plaintext at all is GHASH(segment, -) + mask, hence
//
//	P(segment) = tag + mask + l·H           l = u64 bits of the segment || 0    (2)
//
// AAD costs GHASH alone and no AES, and in hardware it is as fast as GCM's.
// Segments are whole blocks, except that the last one is padded, which the
// standard library does as well. So one segment costs one call of it and a
// few multiplications, by H and by powers of H, which are made once; and the
// sum of all, with A as the first segment, gives
//
//	tag = P(A C) + L·H + mask                                           (3)
//
// The tags of segments under the object's IV are secrets: with them H can be
// found. They stay in this file.

const (
	blockBytes = aes.BlockSize
	tagBytes   = 16
)

// element is an element of GF(2^128) = GF(2)[x]/(x^128+x^7+x^2+x+1) as GCM
// orders it: the first bit of the first byte is the coefficient of x^0.
type element struct{ hi, lo uint64 }

func toElement(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (a element) bytes() (b [blockBytes]byte) {
	binary.BigEndian.PutUint64(b[:], a.hi)
	binary.BigEndian.PutUint64(b[8:], a.lo)
	return b
}

func (a element) add(b element) element { return element{a.hi ^ b.hi, a.lo ^ b.lo} }

// mul multiplies bit by bit, in constant time: both factors are secrets. It
// takes as long as the GHASH of 700 bytes, 74 ns.
func (a element) mul(b element) element {
	var z element
	for _, word := range [...]uint64{a.hi, a.lo} {
		for i := 63; i >= 0; i-- {
			take := -(word >> i & 1) // all ones where the coefficient is 1
			z.hi ^= b.hi & take
			z.lo ^= b.lo & take
			over := -(b.lo & 1) // b·x, where x^128 = x^7+x^2+x+1
			b = element{b.hi>>1 ^ over&(0xe1<<56), b.lo>>1 | b.hi<<63}
		}
	}
	return z
}

// ghash sums up the tag of one object. Not safe for concurrent use.
type ghash struct {
	aead   cipher.AEAD
	iv     []byte
	mask   element
	powers []element // powers[i] = H^(2^i), as far as they were needed
	sum    element   // P of all segments so far
	aad    uint64    // bytes of A
	part   [blockBytes]byte
	held   int // bytes in part, of a block that is not whole yet
	tag    [tagBytes]byte
}

// newGHASH begins the tag of an object with this AAD and an IV of 12 bytes.
func newGHASH(block cipher.Block, iv, aad []byte) (*ghash, error) {
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	g := &ghash{aead: aead, iv: iv, aad: uint64(len(aad))}
	var b [blockBytes]byte
	block.Encrypt(b[:], b[:])
	g.powers = []element{toElement(b[:])}
	c := counter(iv, 1)
	block.Encrypt(b[:], c[:])
	g.mask = toElement(b[:])
	g.segment(aad)
	return g, nil
}

// counter is the counter block of GCM: number 1 makes the mask of the tag, and
// 2 is the first of the content.
func counter(iv []byte, n uint32) (b [blockBytes]byte) {
	binary.BigEndian.PutUint32(b[copy(b[:], iv):], n)
	return b
}

// write takes the next bytes of the ciphertext, any number of them.
func (g *ghash) write(p []byte) {
	if g.held > 0 {
		n := copy(g.part[g.held:], p)
		g.held += n
		if p = p[n:]; g.held < blockBytes {
			return
		}
		g.segment(g.part[:])
	}
	whole := len(p) - len(p)%blockBytes
	g.segment(p[:whole])
	g.held = copy(g.part[:], p[whole:])
}

// segment adds whole blocks, or the last one of AAD or ciphertext: (1), (2).
func (g *ghash) segment(p []byte) {
	if len(p) == 0 {
		return
	}
	g.aead.Seal(g.tag[:0], g.iv, nil, p)
	length := element{hi: uint64(len(p)) * 8}
	s := toElement(g.tag[:]).add(g.mask).add(length.mul(g.powers[0]))
	blocks := (len(p) + blockBytes - 1) / blockBytes
	for i := 0; blocks>>i > 0 && g.sum != (element{}); i++ { // zero at first
		if blocks>>i&1 == 1 {
			g.sum = g.sum.mul(g.power(i))
		}
	}
	g.sum = g.sum.add(s)
}

// power returns H^(2^i).
func (g *ghash) power(i int) element {
	for len(g.powers) <= i {
		last := g.powers[len(g.powers)-1]
		g.powers = append(g.powers, last.mul(last))
	}
	return g.powers[i]
}

// finish returns the tag of a ciphertext of size bytes, all of which were
// written: (3). The state stays as it was.
func (g ghash) finish(size int64) [tagBytes]byte {
	g.segment(g.part[:g.held])
	length := element{g.aad * 8, uint64(size) * 8}
	return g.sum.add(length.mul(g.powers[0])).add(g.mask).bytes()
}
