package emulator

import (
	"encoding/xml"
	"net/http"
	"strings"
)

type attributesXML struct {
	XMLName      xml.Name        `xml:"GetObjectAttributesResponse"`
	Xmlns        string          `xml:"xmlns,attr"`
	ETag         string          `xml:",omitempty"`
	Checksum     *checksumXML    `xml:",omitempty"`
	Parts        *attributeParts `xml:"ObjectParts,omitempty"`
	StorageClass string          `xml:",omitempty"`
	ObjectSize   *int64          `xml:",omitempty"`
}

type attributeParts struct {
	Total int             `xml:"PartsCount"`
	Parts []attributePart `xml:"Part"`
}

type attributePart struct {
	PartNumber int
	Size       int64
	checksumXML
}

func (s *Server) getAttributes(c *call) error {
	customer, err := s.customer(c, customerPrefix)
	if err != nil {
		return err
	}
	if c.r.Header.Get("X-Amz-Max-Parts") != "" || c.r.Header.Get("X-Amz-Part-Number-Marker") != "" {
		return errNotImplemented()
	}
	v, err := c.bucket.lookup(c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	if err := v.SSE.admit(customer); err != nil {
		return err
	}
	asked := strings.Join(c.r.Header.Values("X-Amz-Object-Attributes"), ",")
	if asked == "" {
		return fail("InvalidArgument", "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty")
	}
	doc := attributesXML{Xmlns: xmlns}
	for name := range strings.SplitSeq(asked, ",") {
		switch strings.TrimSpace(name) {
		case "ETag":
			doc.ETag = v.ETag // without quotes, unlike everywhere else
		case "Checksum":
			if v.Checksum.Algorithm != "" {
				doc.Checksum = &checksumXML{}
				doc.Checksum.set(v.Checksum)
			}
		case "ObjectParts":
			doc.Parts = v.attributeParts()
		case "StorageClass":
			doc.StorageClass = v.storageClass()
		case "ObjectSize":
			doc.ObjectSize = &v.Size
		default:
			return fail("InvalidArgument", "Invalid attribute name specified.").with("ArgumentValue", name)
		}
	}
	c.w.Header().Set("Last-Modified", v.modified().Format(http.TimeFormat))
	c.showVersion(v)
	return c.sendXML(http.StatusOK, doc)
}

// attributeParts describes the parts; S3 names them one by one only where they
// have checksums.
func (v *version) attributeParts() *attributeParts {
	if len(v.Parts) == 0 {
		return nil
	}
	out := &attributeParts{Total: len(v.Parts)}
	for _, p := range v.Parts {
		if p.Checksum == "" {
			continue
		}
		x := attributePart{PartNumber: p.Number, Size: p.Size}
		x.set(checksum{Algorithm: v.Checksum.Algorithm, Value: p.Checksum})
		out.Parts = append(out.Parts, x)
	}
	return out
}
