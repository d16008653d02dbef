package emulator

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

// SSE-KMS: every object, and every multipart upload, has a root key of its own
// that the key service seals. S3 calls the service for the client, so what the
// service refuses, and the faults of its verbs, reach the client as S3's errors.

// contextARN is the name in the encryption context that S3 adds by itself.
const contextARN = "aws:s3:arn"

// objectContext is the encryption context of an object: what the client gave
// and the object's ARN, or its bucket's under a bucket key.
func objectContext(bucket, key string, st sseState) (map[string]string, error) {
	context := map[string]string{}
	if st.Context != "" {
		text, err := base64.StdEncoding.DecodeString(st.Context)
		if err == nil {
			err = json.Unmarshal(text, &context)
		}
		if err != nil || context == nil {
			return nil, fail("InvalidArgument", "The header '%s' shall be Base64-encoded UTF-8 string holding JSON which represents a string-string map", headerSSEContext).with("ArgumentName", headerSSEContext)
		}
	}
	arn := "arn:aws:s3:::" + bucket
	if !st.BucketKey {
		arn += "/" + key
	}
	if given, ok := context[contextARN]; ok && given != arn {
		return nil, fail("InvalidArgument", "The encryption context's %s is not this object's.", contextARN).with("ArgumentName", headerSSEContext)
	}
	context[contextARN] = arn
	return context, nil
}

// defaultKey names the key of objects for which none is given.
const defaultKey = "alias/aws/s3"

// sealRoot makes the root key of a new object. st.KeyID, the name that was
// given for the key, becomes what replies show.
func (s *Server) sealRoot(c *call, st *sseState) (*rootKey, error) {
	context, err := objectContext(c.bucket.name, c.key, *st)
	if err != nil {
		return nil, err
	}
	if err := s.kmsFault(c, "kms:GenerateDataKey", c.bucket.name, c.key); err != nil {
		return nil, err
	}
	name, err := s.s3Key(st.KeyID)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, 32)
	rand.Read(plain)
	key, blob, err := s.kms.seal(name, plain, context)
	if err != nil {
		return nil, s.kmsError(st.KeyID, err)
	}
	st.Wrapped = blob
	if !s.dialect.plainKeyNames {
		st.KeyID = s.kms.keyARN(key.ID)
	} else {
		st.KeyID = "arn:aws:kms:" + strings.TrimPrefix(name, "alias/")
	}
	return s.objectRoot(plain, *st)
}

// openRoot recovers the root key of an object.
func (s *Server) openRoot(c *call, bucket, key string, st sseState) (*rootKey, error) {
	context, err := objectContext(bucket, key, st)
	if err != nil {
		return nil, err
	}
	if err := s.kmsFault(c, "kms:Decrypt", bucket, key); err != nil {
		return nil, err
	}
	_, plain, err := s.kms.unseal(st.Wrapped, context, "")
	if err != nil {
		return nil, s.kmsError(st.KeyID, err)
	}
	return s.objectRoot(plain, st)
}

func (s *Server) objectRoot(plain []byte, st sseState) (*rootKey, error) {
	root, err := newRootKey(plain)
	if err == nil && st.Algorithm == algorithmKMSDouble {
		root.outer = s.vault.root
	}
	return root, err
}

// s3Key is the key service's name of what a client calls a key; "" is the
// default key, which is made on first use.
func (s *Server) s3Key(name string) (string, error) {
	if s.dialect.plainKeyNames {
		name = strings.TrimPrefix(name, "arn:aws:kms:")
		if name == "" {
			name = "emulator-default-key"
			if _, err := s.kms.managed("alias/" + name); err != nil {
				return "", err
			}
		}
		return "alias/" + name, nil
	}
	if name == "" {
		name = defaultKey
	}
	if name == defaultKey || name == s.kms.aliasARN(defaultKey) {
		if _, err := s.kms.managed(defaultKey); err != nil {
			return "", err
		}
	}
	return name, nil
}

// kmsFault lets the faults of a verb of the key service strike a request to S3.
func (s *Server) kmsFault(c *call, verb, bucket, key string) error {
	fault := s.faults.strike(verb, bucket, key)
	s.delay(c, fault)
	if e := fault.failure(); e != nil {
		return s.kmsError("", e)
	}
	return nil
}

// kmsError is how S3 passes on an error of the key service.
func (s *Server) kmsError(key string, err error) error {
	var e *apiError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case "NotFoundException", "InvalidArnException":
		if s.dialect.plainKeyNames {
			return fail("kms:KeyNotFound", "Key with given key id does not exist").with("KeyId", key)
		}
		return fail("KMS.NotFoundException", "%s", e.Message)
	case "DisabledException":
		return fail("KMS.DisabledException", "%s", e.Message)
	case "KMSInvalidStateException", "InvalidKeyUsageException":
		return fail("KMS."+e.Code, "%s", e.Message)
	case "AccessDeniedException":
		return fail("AccessDenied", "%s", e.Message)
	case "ThrottlingException":
		return fail("ThrottlingException", "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls. (Service: AWSKMS; Status Code: 400; Error Code: ThrottlingException)")
	}
	return err
}
