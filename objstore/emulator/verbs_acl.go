package emulator

import (
	"encoding/xml"
	"net/http"
)

// The buckets here are as S3 makes them since April 2023, with the object
// ownership "bucket owner enforced": ACLs are shown and cannot be set.

type aclXML struct {
	XMLName xml.Name `xml:"AccessControlPolicy"`
	Xmlns   string   `xml:"xmlns,attr"`
	Owner   ownerXML
	Grants  []grantXML `xml:"AccessControlList>Grant"`
}

type grantXML struct {
	Grantee    granteeXML
	Permission string
}

type granteeXML struct {
	Instance string `xml:"xmlns:xsi,attr"`
	Type     string `xml:"xsi:type,attr"`
	ownerXML
}

// ownersACL lets the owner do everything, and nobody else anything.
func ownersACL() aclXML {
	grantee := granteeXML{Instance: "http://www.w3.org/2001/XMLSchema-instance", Type: "CanonicalUser", ownerXML: owner}
	return aclXML{Xmlns: xmlns, Owner: owner, Grants: []grantXML{{grantee, "FULL_CONTROL"}}}
}

func (s *Server) getBucketACL(c *call) error { return c.sendXML(http.StatusOK, ownersACL()) }

func (s *Server) getObjectACL(c *call) error {
	v, err := c.bucket.lookup(c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	c.showVersion(v)
	return c.sendXML(http.StatusOK, ownersACL())
}

func (s *Server) putACL(*call) error {
	return fail("AccessControlListNotSupported", "The bucket does not allow ACLs")
}
