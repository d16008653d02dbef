package emulator

import (
	"net/http"
	"strconv"
	"strings"
)

// Server-side encryption: which mode a request asks for, which a bucket's rule
// adds, what replies show. customer.go has the keys that clients bring,
// sse_kms.go those of the key service, sse_bucket.go the bucket's rule; the
// bytes themselves are sealed in segment.go.

const (
	headerSSE          = "x-amz-server-side-encryption"
	headerSSEKeyID     = "x-amz-server-side-encryption-aws-kms-key-id"
	headerSSEContext   = "x-amz-server-side-encryption-context"
	headerSSEBucket    = "x-amz-server-side-encryption-bucket-key-enabled"
	algorithmAES256    = "AES256"
	algorithmKMS       = "aws:kms"
	algorithmKMSDouble = "aws:kms:dsse"
)

// sseState is how an object is encrypted. The zero value is plaintext.
type sseState struct {
	// Algorithm is the SSE header's value; "" is plaintext or Customer.
	Algorithm string `json:"algorithm,omitempty"`
	// KeyID names the key of the key service, as replies show it; Context is
	// the context that the client gave, in base64 as it came; Wrapped is the
	// object's root key, sealed by the key service.
	KeyID     string `json:"keyID,omitempty"`
	Context   string `json:"context,omitempty"`
	BucketKey bool   `json:"bucketKey,omitempty"`
	Wrapped   []byte `json:"wrapped,omitempty"`
	// Customer is set for an object under a customer's key.
	Customer *customerCheck `json:"customer,omitempty"`
}

func (st sseState) encrypted() bool { return st.Algorithm != "" || st.Customer != nil }

// isKMSMode tells the two modes whose keys the key service holds.
func isKMSMode(algorithm string) bool {
	return algorithm == algorithmKMS || algorithm == algorithmKMSDouble
}

// show puts the headers of a reply about an object; customer is the key that
// the request brought, nil without.
func (st sseState) show(h http.Header, customer *customerKey) {
	switch {
	case st.Algorithm != "":
		h.Set(headerSSE, st.Algorithm)
		if st.KeyID != "" {
			h.Set(headerSSEKeyID, st.KeyID)
		}
		if st.BucketKey {
			h.Set(headerSSEBucket, "true")
		}
	case st.Customer != nil && customer != nil:
		customer.show(h)
	}
}

// etag is the entity tag of a body with the digest d. As on Amazon S3 it is
// the MD5 of the plaintext only where no key but the server's own is involved.
func (d dialect) etag(st sseState, sum *digest) string {
	if d.md5ETags || !st.encrypted() || st.Algorithm == algorithmAES256 {
		return sum.etag()
	}
	return newID()
}

// protection is how the bytes of an object are sealed.
type protection struct {
	state    sseState
	root     *rootKey     // nil for plaintext
	customer *customerKey // what the request brought, nil without
}

// protect decides how a new object of c is encrypted and makes its key.
func (s *Server) protect(c *call) (protection, error) {
	if c.fault.DropSSE {
		return protection{}, nil
	}
	customer, err := s.customer(c, customerPrefix)
	if err != nil {
		return protection{}, err
	}
	rule := c.bucket.config().Encryption
	if customer != nil {
		if c.r.Header.Get(headerSSE) != "" {
			return protection{}, fail("InvalidArgument", "Server Side Encryption with Customer provided key is incompatible with the encryption method specified").with("ArgumentName", headerSSE)
		}
		if rule.BlocksCustomer {
			return protection{}, fail("AccessDenied", "Access Denied: the bucket's encryption configuration blocks SSE-C (BlockedEncryptionTypes).")
		}
		root, err := newRootKey(customer.key)
		return protection{sseState{Customer: newCustomerCheck(customer)}, root, customer}, err
	}
	st, err := s.dialect.newObjectSSE(c.r.Header, rule)
	if err != nil {
		return protection{}, err
	}
	if isKMSMode(st.Algorithm) {
		root, err := s.sealRoot(c, &st)
		return protection{state: st, root: root}, err
	}
	root, err := s.root(c, c.bucket.name, c.key, st, nil)
	return protection{state: st, root: root}, err
}

// root returns the root key of an object as stored. The caller has admitted
// the customer's key.
func (s *Server) root(c *call, bucket, key string, st sseState, customer *customerKey) (*rootKey, error) {
	switch {
	case st.Customer != nil:
		return newRootKey(customer.key)
	case isKMSMode(st.Algorithm):
		return s.openRoot(c, bucket, key, st)
	case st.encrypted():
		return s.vault.root, nil
	}
	return nil, nil
}

// newObjectSSE decides how a new object is encrypted, by the request's headers
// and the bucket's rule. KeyID is the name that was given for the key.
func (d dialect) newObjectSSE(h http.Header, rule bucketRule) (sseState, error) {
	if !d.encrypts {
		return sseState{}, nil
	}
	algorithm, keyID, context := h.Get(headerSSE), h.Get(headerSSEKeyID), h.Get(headerSSEContext)
	bucketKey := rule.BucketKey
	if text := h.Get(headerSSEBucket); text != "" {
		var err error
		if bucketKey, err = strconv.ParseBool(text); err != nil {
			return sseState{}, fail("InvalidArgument", "The value of %s is not true or false.", headerSSEBucket)
		}
	}
	if err := d.checkAlgorithm(algorithm, "InvalidEncryptionAlgorithmError"); algorithm != "" && err != nil {
		return sseState{}, err
	}
	switch {
	case algorithm == "" && (keyID != "" || context != ""):
		return sseState{}, fail("InvalidArgument", "The header %s is required when KMS headers are given.", headerSSE)
	case algorithm == algorithmAES256 && keyID != "":
		return sseState{}, fail("InvalidArgument", "%s only applies to aws:kms.", headerSSEKeyID)
	case algorithm == "" && rule.Algorithm != "":
		algorithm, keyID = rule.Algorithm, rule.KeyID
	case algorithm == "" && d.encryptsByDefault:
		algorithm = algorithmAES256
	}
	st := sseState{Algorithm: algorithm}
	if isKMSMode(algorithm) {
		st.KeyID, st.Context, st.BucketKey = keyID, context, bucketKey && algorithm == algorithmKMS && !d.dropsBucketKey
	}
	return st, nil
}

// checkAlgorithm refuses modes that the dialect does not have; code is for what
// S3 does not know either.
func (d dialect) checkAlgorithm(algorithm, code string) error {
	switch {
	case among(d.modes, algorithm):
		return nil
	case isKMSMode(algorithm):
		return fail("InvalidArgument", "The encryption method specified is not supported").with("ArgumentName", headerSSE).with("ArgumentValue", algorithm)
	}
	return fail(code, "The encryption request you specified is not valid. Supported value: %s.", strings.ReplaceAll(d.modes, " ", ", ")).with("ArgumentName", headerSSE).with("ArgumentValue", algorithm)
}

// showWrite puts the encryption headers of the reply to a write of an object
// that is stored as st says.
func (s *Server) showWrite(c *call, st sseState, customer *customerKey) {
	h, request := c.w.Header(), c.r.Header
	if s.dialect.echoesSSE {
		for _, name := range []string{headerSSE, headerSSEKeyID, headerSSEBucket} {
			if v := request.Get(name); v != "" {
				h.Set(name, v)
			}
		}
		return
	}
	if verbs := s.dialect.showsSSE; verbs != "" && st.Customer == nil && !among(verbs, c.verb) {
		return
	}
	st.show(h, customer)
	if st.Context != "" && request.Get(headerSSEContext) != "" {
		h.Set(headerSSEContext, st.Context)
	}
}
