package emulator

import (
	"encoding/xml"
	"maps"
	"net/http"
	"slices"
	"time"
)

// timeText is a time in a document.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

type ownerXML struct {
	ID          string
	DisplayName string
}

// owner is the one account.
var owner = ownerXML{ID: "emulator", DisplayName: "emulator"}

func (s *Server) listBuckets(c *call) error {
	type bucketXML struct {
		Name, CreationDate string
		BucketRegion       string
	}
	var doc struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		Xmlns   string   `xml:"xmlns,attr"`
		Owner   ownerXML
		Buckets struct{ Bucket []bucketXML }
		Token   string `xml:"ContinuationToken,omitempty"`
		Prefix  string `xml:",omitempty"`
	}
	limit, err := c.number("max-buckets", 10000, 10000)
	if err != nil {
		return err
	}
	after, err := decodeToken(c.query.Get("continuation-token"))
	if err != nil {
		return err
	}
	doc.Xmlns, doc.Owner, doc.Prefix = xmlns, owner, c.query.Get("prefix")
	s.mu.RLock()
	buckets := maps.Clone(s.buckets)
	s.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		if s.traitsOf(name).Foreign || name <= after || len(name) < len(doc.Prefix) || name[:len(doc.Prefix)] != doc.Prefix {
			continue
		}
		if n := len(doc.Buckets.Bucket); n == limit {
			if n > 0 {
				doc.Token = encodeToken(doc.Buckets.Bucket[n-1].Name)
			}
			break
		}
		doc.Buckets.Bucket = append(doc.Buckets.Bucket, bucketXML{name, timeText(buckets[name].config().Created), s.regionOf(name)})
	}
	return c.sendXML(http.StatusOK, doc)
}

func (s *Server) createBucket(c *call) error {
	var doc struct {
		XMLName  xml.Name `xml:"CreateBucketConfiguration"`
		Location string   `xml:"LocationConstraint"`
	}
	body, _, err := c.document()
	if err != nil {
		return err
	}
	if len(body) > 0 {
		if err := parseXML(body, &doc); err != nil {
			return err
		}
	}
	if !validBucketName(c.name) {
		return fail("InvalidBucketName", "The specified bucket is not valid.").with("BucketName", c.name)
	}
	if doc.Location != "" && doc.Location != s.cfg.Region {
		return fail("IllegalLocationConstraintException", "The %s location constraint is incompatible for the region specific endpoint this request was sent to.", doc.Location)
	}
	// A second request must find the bucket or none.
	s.making.Lock()
	defer s.making.Unlock()
	if s.bucketNamed(c.name) != nil {
		// us-east-1 keeps the answer of S3's first years.
		if s.cfg.Region != "us-east-1" {
			return fail("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it.").with("BucketName", c.name)
		}
	} else {
		conf := bucketConfig{Created: s.clock.now().UTC()}
		conf.Encryption.BlocksCustomer = s.dialect.blocksCustomer
		if s.dialect.creationHeader {
			conf.Encryption = s.creationRule(c.r.Header)
		}
		b, err := createBucket(s.vault, s.clock, c.name, conf)
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.buckets[c.name] = b
		s.mu.Unlock()
	}
	c.w.Header().Set("Location", "/"+c.name)
	return c.send(http.StatusOK)
}

func (s *Server) headBucket(c *call) error {
	c.w.Header().Set("x-amz-bucket-region", s.regionOf(c.name))
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) deleteBucket(c *call) error {
	err := c.bucket.end(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.buckets, c.bucket.name)
	})
	if err != nil {
		return err
	}
	return c.send(http.StatusNoContent)
}

func (s *Server) getBucketLocation(c *call) error {
	var doc struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Xmlns   string   `xml:"xmlns,attr"`
		Region  string   `xml:",chardata"`
	}
	doc.Xmlns = xmlns
	if r := s.regionOf(c.name); r != "us-east-1" {
		doc.Region = r
	}
	return c.sendXML(http.StatusOK, doc)
}

type versioningXML struct {
	XMLName xml.Name `xml:"VersioningConfiguration"`
	Xmlns   string   `xml:"xmlns,attr,omitempty"`
	Status  string   `xml:",omitempty"`
	// MFADelete is read only to refuse it.
	MFADelete string `xml:"MfaDelete,omitempty"`
}

func (s *Server) getBucketVersioning(c *call) error {
	return c.sendXML(http.StatusOK, versioningXML{Xmlns: xmlns, Status: c.bucket.config().Versioning})
}

func (s *Server) putBucketVersioning(c *call) error {
	var doc versioningXML
	if err := c.readXML(&doc); err != nil {
		return err
	}
	if doc.Status != "Enabled" && doc.Status != "Suspended" {
		return errMalformedXML()
	}
	if doc.MFADelete == "Enabled" {
		return errNotImplemented()
	}
	if err := c.bucket.configure(func(conf *bucketConfig) { conf.Versioning = doc.Status }); err != nil {
		return err
	}
	return c.send(http.StatusOK)
}
