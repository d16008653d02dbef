package objstore

import (
	"encoding/base64"
	"hash/crc32"
	"strings"
)

// CRC is a checksum that S3 keeps of whole objects and that can be made of
// those of its parts. All of them work on reversed bits and begin and end with
// all bits inverted.
type CRC struct {
	// Name is S3's: CRC32, CRC32C or CRC64NVME.
	Name string
	// Bits is the width, 32 or 64.
	Bits int
	// Poly is the reversed polynomial, the highest power left out.
	Poly uint64
}

// Those of the S3 user guide, "Checking object integrity". The last polynomial
// is from the NVM Express NVM Command Set Specification.
var (
	CRC32     = CRC{"CRC32", 32, crc32.IEEE}
	CRC32C    = CRC{"CRC32C", 32, crc32.Castagnoli}
	CRC64NVME = CRC{"CRC64NVME", 64, 0x9a6c9329ac4bc9b5}
)

// CRCs are all of them.
var CRCs = [...]CRC{CRC32, CRC32C, CRC64NVME}

// Join returns the sum of A followed by B, given the sums of both and the
// length of B in bytes:
//
//	crc(AB) = crc(A) * x^(8*lenB) mod P  xor  crc(B)
//
// It costs 1 to 2 µs for a B of 1 MiB, on one core of an AMD EPYC.
func (c CRC) Join(a, b uint64, lenB int64) uint64 {
	one := uint64(1) << (c.Bits - 1) // bits are reversed: the top one is x^0
	shift, square := one, one>>8     // x^0, x^8
	for n := lenB; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = c.times(shift, square)
		}
		square = c.times(square, square)
	}
	return c.times(a, shift) ^ b
}

// times multiplies two polynomials mod P.
func (c CRC) times(a, b uint64) uint64 {
	var product uint64
	for bit := uint64(1) << (c.Bits - 1); a != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
			a &^= bit
		}
		if b&1 != 0 {
			b = b>>1 ^ c.Poly
		} else {
			b >>= 1
		}
	}
	return product
}

// Text is a sum as S3 writes it: base64 of the big-endian bytes.
func (c CRC) Text(sum uint64) string {
	p := make([]byte, 0, 8)
	for shift := c.Bits - 8; shift >= 0; shift -= 8 {
		p = append(p, byte(sum>>shift))
	}
	return base64.StdEncoding.EncodeToString(p)
}

// Parse is the reverse of Text.
func (c CRC) Parse(text string) (sum uint64, ok bool) {
	p, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(p) != c.Bits/8 {
		return 0, false
	}
	for _, b := range p {
		sum = sum<<8 | uint64(b)
	}
	return sum, true
}

// CRC returns the stored sum over all bytes of the object; ok is false when
// the store has not told one.
func (o Object) CRC() (c CRC, sum uint64, ok bool) {
	name, text, _ := strings.Cut(o.Checksum, ":")
	for _, c := range CRCs {
		if c.Name == name && o.ChecksumOfWhole {
			sum, ok = c.Parse(text)
			return c, sum, ok
		}
	}
	return CRC{}, 0, false
}
