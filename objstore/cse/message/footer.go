package message

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash"
)

// publicKey returns the key that the signature is to be verified with, from
// the encryption context: a compressed point in base64.
func publicKey(h *Header) (*ecdsa.PublicKey, error) {
	text, ok := h.Context.Get(publicKeyName)
	curve := suites[h.Suite].curve
	switch {
	case curve == nil && ok:
		return nil, fail(Malformed, "header", "suite %s has no signature, and there is a key for one", h.Suite)
	case curve == nil:
		return nil, nil
	case !ok:
		return nil, fail(Malformed, "header", "suite %s is signed, and there is no key to verify that with", h.Suite)
	}
	point, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fail(Malformed, "header", "the key of the signature is not base64")
	}
	x, y := elliptic.UnmarshalCompressed(curve, point)
	if x == nil {
		return nil, fail(Malformed, "header", "the key of the signature is no point of %s", curve.Params().Name)
	}
	n := (curve.Params().BitSize + 7) / 8
	p := make([]byte, 1+2*n)
	p[0] = 4 // uncompressed
	x.FillBytes(p[1 : 1+n])
	y.FillBytes(p[1+n:])
	return ecdsa.ParseUncompressedPublicKey(curve, p)
}

// footers returns how long the footer can be. There is no mark at its begin,
// and writers differ: most sign until the length is the usual one. So every
// length is possible that the bytes at its place say, before what may be DER.
// Which one it is, the final frame decides.
func (o *Opener) footers(stored int64, tail []byte) ([]int64, error) {
	most := int64(suites[o.header.Suite].footerBytes())
	if most == 0 {
		return []int64{0}, nil
	}
	if need := min(stored, most); int64(len(tail)) < need {
		return nil, &Error{Kind: Short, Part: "footer", Offset: -1, Need: need,
			Text: fmt.Sprintf("it may have %d bytes, there are %d", most, len(tail))}
	}
	var found []int64
	for s := int64(3); s <= min(most, int64(len(tail))); s++ {
		f := tail[int64(len(tail))-s:]
		if int64(binary.BigEndian.Uint16(f)) == s-2 && f[2] == derSequence {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil, fail(Malformed, "footer", "there is no signature at the end: the message is cut short, or goes on")
	}
	return found, nil
}

const derSequence = 0x30

// Verifier verifies the signature of a message while it is read from front to
// back. Not safe for concurrent use.
type Verifier struct {
	public *ecdsa.PublicKey
	hash   hash.Hash
}

// Verifier returns a Verifier that has seen the header. A suite without
// signature is Unsupported.
//
// What a signature adds depends on how the data key was wrapped. Under a raw
// RSA key it adds nothing: whoever has the public key can sign.
func (o *Opener) Verifier() (*Verifier, error) {
	if o.public == nil {
		return nil, fail(Unsupported, "footer", "suite %s has no signature", o.header.Suite)
	}
	v := &Verifier{o.public, suites[o.header.Suite].signature.New()}
	v.hash.Write(o.header.raw)
	return v, nil
}

// Write takes the next bytes of the body as they are in the message: all that
// is between header and footer. It never fails.
func (v *Verifier) Write(p []byte) (int, error) { return v.hash.Write(p) }

// Verify verifies the signature after all of the body has been written. footer
// is all of the footer.
func (v *Verifier) Verify(footer []byte) error {
	if len(footer) < 2 || int(binary.BigEndian.Uint16(footer)) != len(footer)-2 {
		return fail(Malformed, "footer", "it does not end where it says")
	}
	if !ecdsa.VerifyASN1(v.public, v.hash.Sum(nil), footer[2:]) {
		return fail(Unauthentic, "footer", "the signature is not one of the bytes before it")
	}
	return nil
}
