package emulator

import (
	"encoding/xml"
	"net/http"
)

type taggingXML struct {
	XMLName xml.Name `xml:"Tagging"`
	Xmlns   string   `xml:"xmlns,attr,omitempty"`
	TagSet  struct {
		Tag []tagXML
	}
}

type tagXML struct{ Key, Value string }

func (s *Server) getTagging(c *call) error {
	v, err := c.bucket.lookup(c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	doc := taggingXML{Xmlns: xmlns}
	for _, t := range v.Tags {
		doc.TagSet.Tag = append(doc.TagSet.Tag, tagXML(t))
	}
	c.showVersion(v)
	return c.sendXML(http.StatusOK, doc)
}

func (s *Server) putTagging(c *call) error {
	var doc taggingXML
	if err := c.readXML(&doc); err != nil {
		return err
	}
	var tags []tag
	for _, t := range doc.TagSet.Tag {
		tags = append(tags, tag(t))
	}
	if err := checkTags(tags); err != nil {
		return err
	}
	return s.retag(c, tags, http.StatusOK)
}

func (s *Server) deleteTagging(c *call) error { return s.retag(c, nil, http.StatusNoContent) }

func (s *Server) retag(c *call, tags []tag, status int) error {
	v, err := c.bucket.change(c.key, c.query.Get("versionId"), func(v *version) error {
		v.Tags = tags
		return nil
	})
	if err != nil {
		return err
	}
	c.showVersion(v)
	return c.send(status)
}
