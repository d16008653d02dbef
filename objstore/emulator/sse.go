package emulator

import (
	"encoding/xml"
	"net/http"
)

// Server-side encryption: which mode a request asks for, which a bucket's rule
// adds, what replies show. customer.go has the keys that clients bring; the
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
	// Customer is set for an object under a customer's key.
	Customer *customerCheck `json:"customer,omitempty"`
}

func (st sseState) encrypted() bool { return st.Algorithm != "" || st.Customer != nil }

// show puts the headers of a reply about an object; customer is the key that
// the request brought, nil without.
func (st sseState) show(h http.Header, customer *customerKey) {
	switch {
	case st.Algorithm != "":
		h.Set(headerSSE, st.Algorithm)
	case st.Customer != nil && customer != nil:
		customer.show(h)
	}
}

// etag is the entity tag of a body with the digest d. As on Amazon S3 it is
// the MD5 of the plaintext only where no key but the server's own is involved.
func (st sseState) etag(d *digest) string {
	if st.Algorithm == "" && st.Customer == nil || st.Algorithm == algorithmAES256 {
		return d.etag()
	}
	return newID()
}

// bucketRule is a bucket's default encryption. The zero value is no rule.
type bucketRule struct {
	Algorithm string `json:"algorithm,omitempty"`
	KeyID     string `json:"keyID,omitempty"`
	BucketKey bool   `json:"bucketKey,omitempty"`
}

// protection is how the bytes of an object are sealed.
type protection struct {
	state    sseState
	root     *rootKey     // nil for plaintext
	customer *customerKey // what the request brought, nil without
}

// protect decides how a new object of c is encrypted and makes its key.
func (s *Server) protect(c *call) (protection, error) {
	customer, err := s.customer(c, customerPrefix)
	if err != nil {
		return protection{}, err
	}
	if customer != nil {
		if c.r.Header.Get(headerSSE) != "" {
			return protection{}, fail("InvalidArgument", "Server Side Encryption with Customer provided key is incompatible with the encryption method specified").with("ArgumentName", headerSSE)
		}
		root, err := newRootKey(customer.key)
		return protection{sseState{Customer: newCustomerCheck(customer)}, root, customer}, err
	}
	st, err := s.dialect.newObjectSSE(c.r.Header, c.bucket.config().Encryption)
	if err != nil {
		return protection{}, err
	}
	root, err := s.root(st, nil)
	return protection{state: st, root: root}, err
}

// root returns the root key of a stored object. The caller has admitted the
// customer's key.
func (s *Server) root(st sseState, customer *customerKey) (*rootKey, error) {
	switch {
	case st.Customer != nil:
		return newRootKey(customer.key)
	case st.encrypted():
		return s.vault.root, nil
	}
	return nil, nil
}

// newObjectSSE decides how a new object is encrypted, by the request's headers
// and the bucket's rule.
func (d dialect) newObjectSSE(h http.Header, rule bucketRule) (sseState, error) {
	if !d.encrypts {
		return sseState{}, nil
	}
	algorithm := h.Get(headerSSE)
	switch {
	case algorithm == "" && (h.Get(headerSSEKeyID) != "" || h.Get(headerSSEContext) != ""):
		return sseState{}, fail("InvalidArgument", "The header %s is required when KMS headers are given.", headerSSE)
	case algorithm == algorithmAES256 && h.Get(headerSSEKeyID) != "":
		return sseState{}, fail("InvalidArgument", "%s only applies to aws:kms.", headerSSEKeyID)
	case algorithm != "":
		return sseState{Algorithm: algorithm}, checkAlgorithm(algorithm, "InvalidEncryptionAlgorithmError")
	case rule.Algorithm != "":
		return sseState{Algorithm: rule.Algorithm}, nil
	case d.encryptsByDefault:
		return sseState{Algorithm: algorithmAES256}, nil
	}
	return sseState{}, nil
}

// checkAlgorithm refuses what is not AES256; code is for what S3 does not
// know either.
func checkAlgorithm(algorithm, code string) error {
	switch algorithm {
	case algorithmAES256:
		return nil
	case algorithmKMS, algorithmKMSDouble:
		return fail("InvalidRequest", "This server has no KMS: %s is not available.", algorithm)
	}
	return fail(code, "The encryption request you specified is not valid. Supported value: AES256, aws:kms, aws:kms:dsse.").with("ArgumentName", headerSSE).with("ArgumentValue", algorithm)
}

// showWrite puts the encryption headers of the reply to a write of an object
// that is stored as st says.
func (d dialect) showWrite(h http.Header, request http.Header, st sseState, customer *customerKey) {
	if d.echoesSSE {
		for _, name := range []string{headerSSE, headerSSEKeyID, headerSSEBucket} {
			if v := request.Get(name); v != "" {
				h.Set(name, v)
			}
		}
		return
	}
	st.show(h, customer)
}

// encryptionXML is the body of Get- and PutBucketEncryption.
type encryptionXML struct {
	XMLName xml.Name  `xml:"ServerSideEncryptionConfiguration"`
	Xmlns   string    `xml:"xmlns,attr,omitempty"`
	Rules   []ruleXML `xml:"Rule"`
}

type ruleXML struct {
	Default *struct {
		Algorithm string `xml:"SSEAlgorithm"`
		KeyID     string `xml:"KMSMasterKeyID,omitempty"`
	} `xml:"ApplyServerSideEncryptionByDefault"`
	BucketKey bool `xml:"BucketKeyEnabled"`
}

// rule reads a configuration as the dialect takes it.
func (d dialect) rule(doc encryptionXML) (bucketRule, error) {
	if len(doc.Rules) != 1 || doc.Rules[0].Default == nil {
		return bucketRule{}, errMalformedXML()
	}
	def := doc.Rules[0].Default
	rule := bucketRule{Algorithm: def.Algorithm, KeyID: def.KeyID, BucketKey: doc.Rules[0].BucketKey}
	if !d.encrypts {
		if rule.Algorithm == "" {
			return bucketRule{}, errMalformedXML()
		}
		return rule, nil
	}
	if err := checkAlgorithm(rule.Algorithm, "MalformedXML"); err != nil {
		return bucketRule{}, err
	}
	if rule.KeyID != "" {
		return bucketRule{}, fail("InvalidArgument", "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse")
	}
	return rule, nil
}

func (s *Server) getBucketEncryption(c *call) error {
	if !s.dialect.bucketEncryption {
		return errNotImplemented()
	}
	rule := c.bucket.config().Encryption
	if rule.Algorithm == "" && s.dialect.encryptsByDefault {
		rule.Algorithm = algorithmAES256
	}
	if rule.Algorithm == "" {
		return fail("ServerSideEncryptionConfigurationNotFoundError", "The server side encryption configuration was not found").with("BucketName", c.bucket.name)
	}
	doc := encryptionXML{Xmlns: xmlns, Rules: make([]ruleXML, 1)}
	doc.Rules[0].Default = &struct {
		Algorithm string `xml:"SSEAlgorithm"`
		KeyID     string `xml:"KMSMasterKeyID,omitempty"`
	}{rule.Algorithm, rule.KeyID}
	doc.Rules[0].BucketKey = rule.BucketKey
	return c.sendXML(http.StatusOK, doc)
}

func (s *Server) putBucketEncryption(c *call) error {
	if !s.dialect.bucketEncryption {
		return errNotImplemented()
	}
	var doc encryptionXML
	if err := c.readXML(&doc); err != nil {
		return err
	}
	rule, err := s.dialect.rule(doc)
	if err != nil {
		return err
	}
	if err := c.bucket.configure(func(conf *bucketConfig) { conf.Encryption = rule }); err != nil {
		return err
	}
	return c.send(http.StatusOK)
}

func (s *Server) deleteBucketEncryption(c *call) error {
	if !s.dialect.bucketEncryption {
		return errNotImplemented()
	}
	if err := c.bucket.configure(func(conf *bucketConfig) { conf.Encryption = bucketRule{} }); err != nil {
		return err
	}
	return c.send(http.StatusNoContent)
}
