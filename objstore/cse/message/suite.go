package message

import (
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// Suite is an algorithm suite: how keys are derived and whether the message
// commits to its key and is signed. The cipher is AES-GCM in all of them, with
// an IV of 12 bytes and a tag of 16.
type Suite uint16

// Committed is the suite that Coffer writes; CommittedSigned is what every SDK
// writes if not told otherwise.
const (
	Committed       Suite = 0x0478
	CommittedSigned Suite = 0x0578
)

// suite is a row of the table.
type suite struct {
	format    int              // 1 or 2
	keyBytes  int              // of the data key, and of the key that seals
	kdf       func() hash.Hash // HKDF's; nil: the data key seals
	curve     elliptic.Curve   // of the signature; nil: not signed
	signature crypto.Hash      // what is signed
}

// suites are those of the specification, framework/algorithm-suites.md. Those
// of format 2 commit to the key, those of format 1 do not: a message of
// theirs can be made to decrypt to different bytes under different keys.
var suites = map[Suite]suite{
	0x0014:          {format: 1, keyBytes: 16},
	0x0046:          {format: 1, keyBytes: 24},
	0x0078:          {format: 1, keyBytes: 32},
	0x0114:          {format: 1, keyBytes: 16, kdf: sha256.New},
	0x0146:          {format: 1, keyBytes: 24, kdf: sha256.New},
	0x0178:          {format: 1, keyBytes: 32, kdf: sha256.New},
	0x0214:          {format: 1, keyBytes: 16, kdf: sha256.New, curve: elliptic.P256(), signature: crypto.SHA256},
	0x0346:          {format: 1, keyBytes: 24, kdf: sha512.New384, curve: elliptic.P384(), signature: crypto.SHA384},
	0x0378:          {format: 1, keyBytes: 32, kdf: sha512.New384, curve: elliptic.P384(), signature: crypto.SHA384},
	Committed:       {format: 2, keyBytes: 32, kdf: sha512.New},
	CommittedSigned: {format: 2, keyBytes: 32, kdf: sha512.New, curve: elliptic.P384(), signature: crypto.SHA384},
}

// Known reports whether the suite is one of the specification's. The other
// methods answer zero for one that is not.
func (s Suite) Known() bool { _, ok := suites[s]; return ok }

// Format is the version of the header: 1 or 2.
func (s Suite) Format() int { return suites[s].format }

// KeyBytes is the length of the data key.
func (s Suite) KeyBytes() int { return suites[s].keyBytes }

// Committing reports whether a message can be opened with one data key only.
func (s Suite) Committing() bool { return suites[s].format == 2 }

// Signed reports whether a message ends with a signature.
func (s Suite) Signed() bool { return suites[s].curve != nil }

// String returns the number as the specification writes it: 0x0478.
func (s Suite) String() string { return fmt.Sprintf("0x%04x", uint16(s)) }

// idBytes is the length of the message ID.
func (s suite) idBytes() int {
	if s.format == 1 {
		return 16
	}
	return 32
}

// footerBytes is the most that a footer takes: u16 length, SEQUENCE of two
// INTEGERs of the curve's length and a zero byte each.
func (s suite) footerBytes() int {
	if s.curve == nil {
		return 0
	}
	return 2 + 2 + 2*(2+1+(s.curve.Params().BitSize+7)/8)
}
