package emulator

import (
	"encoding/xml"
	"net/http"
	"slices"
)

// bucketRule is a bucket's default encryption. The zero value is no rule.
type bucketRule struct {
	Algorithm string `json:"algorithm,omitempty"`
	KeyID     string `json:"keyID,omitempty"`
	BucketKey bool   `json:"bucketKey,omitempty"`
	// BlocksCustomer: objects cannot be written with SSE-C.
	BlocksCustomer bool `json:"blocksCustomer,omitempty"`
}

// encryptionXML is the body of Get- and PutBucketEncryption.
type encryptionXML struct {
	XMLName xml.Name  `xml:"ServerSideEncryptionConfiguration"`
	Xmlns   string    `xml:"xmlns,attr,omitempty"`
	Rules   []ruleXML `xml:"Rule"`
}

type ruleXML struct {
	Default   *defaultXML `xml:"ApplyServerSideEncryptionByDefault"`
	BucketKey bool        `xml:"BucketKeyEnabled"`
	Blocked   *blockedXML `xml:"BlockedEncryptionTypes"`
}

type defaultXML struct {
	Algorithm string `xml:"SSEAlgorithm"`
	KeyID     string `xml:"KMSMasterKeyID,omitempty"`
}

type blockedXML struct {
	Types []string `xml:"EncryptionType"`
}

// rule reads a configuration as the dialect takes it; what it does not mention
// of now stays.
func (s *Server) rule(doc encryptionXML, now bucketRule) (bucketRule, error) {
	d := s.dialect
	if len(doc.Rules) != 1 {
		return bucketRule{}, errMalformedXML()
	}
	x := doc.Rules[0]
	if x.Default == nil && x.Blocked != nil && d.encryptsByDefault {
		x.Default = &defaultXML{Algorithm: algorithmAES256}
	}
	if x.Default == nil {
		return bucketRule{}, errMalformedXML()
	}
	rule := bucketRule{Algorithm: x.Default.Algorithm, KeyID: x.Default.KeyID, BucketKey: x.BucketKey && !d.dropsBucketKey}
	if !d.encrypts {
		if rule.Algorithm == "" {
			return bucketRule{}, errMalformedXML()
		}
		return rule, nil
	}
	if err := d.checkAlgorithm(rule.Algorithm, "MalformedXML"); err != nil {
		return bucketRule{}, errMalformedXML()
	}
	if rule.KeyID != "" && !isKMSMode(rule.Algorithm) {
		return bucketRule{}, fail("InvalidArgument", "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse")
	}
	rule.BlocksCustomer = now.BlocksCustomer
	if x.Blocked != nil && !d.dropsBucketKey {
		for _, kind := range x.Blocked.Types {
			if kind != "SSE-C" && kind != "NONE" {
				return bucketRule{}, errMalformedXML()
			}
		}
		rule.BlocksCustomer = slices.Contains(x.Blocked.Types, "SSE-C")
	}
	if d.plainKeyNames && rule.Algorithm == algorithmKMS {
		// MinIO wants a key here, and one that is there; Amazon S3 finds out
		// when an object is written.
		if rule.KeyID == "" {
			return bucketRule{}, errMalformedXML()
		}
		name, err := s.s3Key(rule.KeyID)
		if err == nil {
			_, err = s.kms.find(name)
		}
		if err != nil {
			return bucketRule{}, s.kmsError(rule.KeyID, err)
		}
	}
	return rule, nil
}

// creationHeader is Scality's way to make an encrypted bucket. What it does
// not know it ignores, and the bucket is plain.
const creationHeader = "x-amz-scal-server-side-encryption"

func (s *Server) creationRule(h http.Header) bucketRule {
	switch algorithm := h.Get(creationHeader); algorithm {
	case algorithmAES256:
		return bucketRule{Algorithm: algorithm}
	case algorithmKMS:
		return bucketRule{Algorithm: algorithm, KeyID: h.Get(creationHeader + "-aws-kms-key-id")}
	}
	return bucketRule{}
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
	x := ruleXML{Default: &defaultXML{rule.Algorithm, rule.KeyID}, BucketKey: rule.BucketKey}
	if rule.BlocksCustomer {
		x.Blocked = &blockedXML{[]string{"SSE-C"}}
	}
	return c.sendXML(http.StatusOK, encryptionXML{Xmlns: xmlns, Rules: []ruleXML{x}})
}

func (s *Server) putBucketEncryption(c *call) error {
	if !s.dialect.bucketEncryption {
		return errNotImplemented()
	}
	var doc encryptionXML
	if err := c.readXML(&doc); err != nil {
		return err
	}
	rule, err := s.rule(doc, c.bucket.config().Encryption)
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
	if err := c.bucket.configure(func(conf *bucketConfig) { conf.Encryption = bucketRule{BlocksCustomer: conf.Encryption.BlocksCustomer} }); err != nil {
		return err
	}
	return c.send(http.StatusNoContent)
}
