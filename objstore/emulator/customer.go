package emulator

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
)

// SSE-C: the client brings the key with every request. The server wraps the
// data keys under it and keeps no more of it than a salted check.

const (
	customerPrefix     = "X-Amz-Server-Side-Encryption-Customer-"
	copyCustomerPrefix = "X-Amz-Copy-Source-Server-Side-Encryption-Customer-"
)

// customerKey is a key that came with a request.
type customerKey struct {
	key []byte // 32 bytes
	md5 string // base64, as replies repeat it
}

// customerCheck recognises a customer's key without holding it.
type customerCheck struct {
	Salt []byte `json:"salt"`
	Sum  []byte `json:"sum"` // HMAC-SHA256 of the key under Salt
}

func newCustomerCheck(k *customerKey) *customerCheck {
	c := &customerCheck{Salt: make([]byte, 16)}
	rand.Read(c.Salt)
	c.Sum = c.of(k)
	return c
}

func (c *customerCheck) of(k *customerKey) []byte {
	h := hmac.New(sha256.New, c.Salt)
	h.Write(k.key)
	return h.Sum(nil)
}

func (c *customerCheck) matches(k *customerKey) bool { return hmac.Equal(c.Sum, c.of(k)) }

// customer reads the customer's key of a request, nil when it has none; prefix
// tells the key of the object from that of a copy's source.
func (s *Server) customer(c *call, prefix string) (*customerKey, error) {
	h := c.r.Header
	algorithm, text, sum := h.Get(prefix+"Algorithm"), h.Get(prefix+"Key"), h.Get(prefix+"Key-Md5")
	if !s.dialect.customerKeys || algorithm == "" && text == "" && sum == "" {
		return nil, nil
	}
	const what = "Requests specifying Server Side Encryption with Customer provided keys must "
	if c.r.TLS == nil && !s.cfg.AllowSSECOverHTTP {
		return nil, fail("InvalidRequest", what+"be made over a secure connection.")
	}
	bad := func(name, message string) error {
		return fail("InvalidArgument", "%s", message).with("ArgumentName", http.CanonicalHeaderKey(prefix+name))
	}
	switch {
	case algorithm == "":
		return nil, bad("Algorithm", what+"provide a valid encryption algorithm.")
	case algorithm != algorithmAES256:
		return nil, fail("InvalidEncryptionAlgorithmError", "The encryption request you specified is not valid. Supported value: AES256.").with("ArgumentValue", algorithm)
	case text == "":
		return nil, bad("Key", what+"provide an appropriate secret key.")
	case sum == "":
		return nil, bad("Key-Md5", what+"provide the client calculated MD5 of the secret key.")
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, bad("Key", "The secret key was invalid for the specified algorithm.")
	}
	if got := md5.Sum(key); base64.StdEncoding.EncodeToString(got[:]) != sum {
		return nil, bad("Key-Md5", "The calculated MD5 hash of the key did not match the hash that was provided.")
	}
	return &customerKey{key: key, md5: sum}, nil
}

// show puts the headers of a reply about an object under this key.
func (k *customerKey) show(h http.Header) {
	h.Set(customerPrefix+"Algorithm", algorithmAES256)
	h.Set(customerPrefix+"Key-Md5", k.md5)
}

// admit checks the key that a request for a stored object brings.
func (st sseState) admit(k *customerKey) error {
	switch {
	case st.Customer == nil && k == nil:
		return nil
	case st.Customer == nil:
		return fail("InvalidRequest", "The encryption parameters are not applicable to this object.")
	case k == nil:
		return fail("InvalidRequest", "The object was stored using a form of Server Side Encryption. The correct parameters must be provided to retrieve the object.")
	case !st.Customer.matches(k):
		return fail("AccessDenied", "Access Denied")
	}
	return nil
}

// admitPart is admit for a request about an upload's parts.
func (st sseState) admitPart(k *customerKey) error {
	switch {
	case st.Customer == nil && k == nil:
		return nil
	case st.Customer == nil:
		return fail("InvalidRequest", "The multipart upload initiate did not request encryption. Please resend the request without sending encryption parameters.")
	case k == nil:
		return fail("InvalidRequest", "The multipart upload initiate requested encryption. Subsequent part requests must include the appropriate encryption parameters.")
	case !st.Customer.matches(k):
		return fail("InvalidRequest", "The provided encryption parameters did not match the ones used originally.")
	}
	return nil
}
