package objstore

// Mode names a way in which stored bytes are protected. As a wish it may be
// [ModeAuto]; as a statement about an object it is one of the others.
type Mode string

// The modes. The values of statements are the words that a user sees in the
// extended attribute user.s3.encryption.
const (
	// ModeAuto, the zero value, is a wish only: let a bucket that proves to
	// encrypt by itself do so, and ask for SSE-S3 where it does not.
	ModeAuto Mode = ""
	// ModeNone means stored in plaintext. It is only ever a wish by name.
	ModeNone Mode = "none"
	// ModeSSES3 is server-side encryption under keys of the store (AES256).
	ModeSSES3 Mode = "SSE-S3"
	// ModeSSEKMS is server-side encryption under a key of a KMS.
	ModeSSEKMS Mode = "SSE-KMS"
	// ModeDSSEKMS is two layers of server-side encryption under a KMS key.
	ModeDSSEKMS Mode = "DSSE-KMS"
	// ModeSSEC is server-side encryption under a key sent with every request.
	ModeSSEC Mode = "SSE-C"
	// ModeCSEC is client-side encryption under keys that the user holds. This and
	// ModeCSEKMS are values of Encryption.CSEMode only.
	ModeCSEC Mode = "CSE-C"
	// ModeCSEKMS is client-side encryption under data keys of a KMS.
	ModeCSEKMS Mode = "CSE-KMS"
)

// Encryption states how an object is protected, or how it shall be.
// The zero value is the wish "auto".
type Encryption struct {
	Mode Mode
	// KMSKeyID is the key's id, alias or ARN as the store reports it; an
	// alias that was asked for may come back as an ARN.
	KMSKeyID string
	// CustomerKeyMD5 is the base64 MD5 of the SSE-C key, never the key.
	CustomerKeyMD5 string
	// BucketKey tells that an S3 bucket key saves calls to the KMS.
	BucketKey bool
	// CSE describes client-side encryption as "format/suite/frame", "" when
	// the bytes that reach the store are the visible ones.
	CSE string
	// CSEMode is whose keys that encryption is under, "" beside an empty CSE.
	CSEMode Mode
	// Verified tells of a signed message whether its signature was verified, and of
	// what has one tag for all of the object that it was.
	Verified string
}

// Word is what a user is shown: "SSE-S3", "CSE-C", "CSE-C+SSE-S3" where both the
// client and the store encrypt, "none".
func (e Encryption) Word() string {
	switch {
	case e.CSE == "":
		return string(e.Mode)
	case e.Mode == ModeAuto || e.Mode == ModeNone:
		return string(e.CSEMode)
	}
	return string(e.CSEMode) + "+" + string(e.Mode)
}

// Encrypted reports whether no plaintext rests in the store.
func (e Encryption) Encrypted() bool {
	return e.CSE != "" || (e.Mode != ModeAuto && e.Mode != ModeNone)
}

// SSEHeader returns the value that x-amz-server-side-encryption has for this
// mode: AES256, aws:kms, aws:kms:dsse, or "" for the modes without one.
func (e Encryption) SSEHeader() string {
	switch e.Mode {
	case ModeSSES3:
		return "AES256"
	case ModeSSEKMS:
		return "aws:kms"
	case ModeDSSEKMS:
		return "aws:kms:dsse"
	}
	return ""
}

// ModeOfSSEHeader is the inverse of [Encryption.SSEHeader]: "" is ModeNone,
// and ok is false for a value that no version of S3 documents.
func ModeOfSSEHeader(v string) (m Mode, ok bool) {
	switch v {
	case "":
		return ModeNone, true
	case "AES256":
		return ModeSSES3, true
	case "aws:kms":
		return ModeSSEKMS, true
	case "aws:kms:dsse":
		return ModeDSSEKMS, true
	}
	return ModeNone, false
}
