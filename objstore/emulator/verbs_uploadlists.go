package emulator

import (
	"encoding/xml"
	"net/http"
	"strings"
)

func (s *Server) listParts(c *call) error {
	u, err := c.bucket.uploadOf(c.key, c.query.Get("uploadId"))
	if err != nil {
		return err
	}
	encode, kind, err := s.encoder(c)
	if err != nil {
		return err
	}
	marker, err := c.number("part-number-marker", 0, 1<<31-1)
	if err != nil {
		return err
	}
	limit, err := c.number("max-parts", maxPage, maxPage)
	if err != nil {
		return err
	}
	type partXML struct {
		PartNumber   int
		LastModified string
		ETag         string
		Size         int64
		checksumXML
	}
	var doc struct {
		XMLName              xml.Name `xml:"ListPartsResult"`
		Xmlns                string   `xml:"xmlns,attr"`
		Bucket               string
		Key                  keyText
		UploadID             string `xml:"UploadId"`
		Initiator            ownerXML
		Owner                ownerXML
		StorageClass         string
		PartNumberMarker     int
		NextPartNumberMarker int `xml:",omitempty"`
		MaxParts             int
		EncodingType         string `xml:",omitempty"`
		IsTruncated          bool
		ChecksumAlgorithm    string    `xml:",omitempty"`
		ChecksumType         string    `xml:",omitempty"`
		Parts                []partXML `xml:"Part"`
	}
	doc.Xmlns, doc.Bucket, doc.Key, doc.UploadID, doc.EncodingType = xmlns, c.bucket.name, encode(c.key), u.ID, kind
	doc.Initiator, doc.Owner, doc.StorageClass = owner, owner, u.Object.storageClass()
	doc.PartNumberMarker, doc.MaxParts = marker, limit
	doc.ChecksumAlgorithm, doc.ChecksumType = u.ChecksumAlgorithm, u.ChecksumType
	for _, p := range u.partList() {
		if p.Number <= marker {
			continue
		}
		if len(doc.Parts) == limit {
			doc.IsTruncated = true
			break
		}
		x := partXML{PartNumber: p.Number, LastModified: timeText(p.Modified), ETag: quoted(p.ETag), Size: p.Segment.Size}
		x.set(checksum{Algorithm: p.Checksum.Algorithm, Value: p.Checksum.Value})
		doc.Parts = append(doc.Parts, x)
		doc.NextPartNumberMarker = p.Number
	}
	return c.sendXML(http.StatusOK, doc)
}

func (s *Server) listUploads(c *call) error {
	encode, kind, err := s.encoder(c)
	if err != nil {
		return err
	}
	limit, err := c.number("max-uploads", maxPage, maxPage)
	if err != nil {
		return err
	}
	type uploadXML struct {
		Key               keyText
		UploadID          string `xml:"UploadId"`
		Initiator         ownerXML
		Owner             ownerXML
		StorageClass      string
		Initiated         string
		ChecksumAlgorithm string `xml:",omitempty"`
		ChecksumType      string `xml:",omitempty"`
	}
	var doc struct {
		XMLName            xml.Name `xml:"ListMultipartUploadsResult"`
		Xmlns              string   `xml:"xmlns,attr"`
		Bucket             string
		KeyMarker          keyText
		UploadIDMarker     string   `xml:"UploadIdMarker"`
		NextKeyMarker      *keyText `xml:",omitempty"`
		NextUploadIDMarker string   `xml:"NextUploadIdMarker,omitempty"`
		Prefix             keyText
		Delimiter          *keyText `xml:",omitempty"`
		EncodingType       string   `xml:",omitempty"`
		MaxUploads         int
		IsTruncated        bool
		Uploads            []uploadXML `xml:"Upload"`
		Prefixes           []prefixXML `xml:"CommonPrefixes"`
	}
	prefix, delimiter := c.query.Get("prefix"), c.query.Get("delimiter")
	keyMarker, idMarker := c.query.Get("key-marker"), c.query.Get("upload-id-marker")
	doc.Xmlns, doc.Bucket, doc.KeyMarker, doc.UploadIDMarker = xmlns, c.bucket.name, encode(keyMarker), idMarker
	doc.Prefix, doc.EncodingType, doc.MaxUploads = encode(prefix), kind, limit
	if delimiter != "" {
		d := encode(delimiter)
		doc.Delimiter = &d
	}
	var lastKey, lastID, lastGroup string
	for _, u := range c.bucket.uploadsAfter(prefix, keyMarker, idMarker) {
		group := ""
		if delimiter != "" {
			if rest := u.Object.Key[len(prefix):]; strings.Contains(rest, delimiter) {
				group = u.Object.Key[:len(prefix)+strings.Index(rest, delimiter)+len(delimiter)]
				if group == lastGroup || group <= keyMarker {
					continue
				}
			}
		}
		if len(doc.Uploads)+len(doc.Prefixes) == limit {
			doc.IsTruncated = limit > 0
			break
		}
		if group != "" {
			lastGroup, lastKey, lastID = group, group, ""
			doc.Prefixes = append(doc.Prefixes, prefixXML{encode(group)})
			continue
		}
		lastKey, lastID = u.Object.Key, u.ID
		doc.Uploads = append(doc.Uploads, uploadXML{
			Key: encode(u.Object.Key), UploadID: u.ID, Initiator: owner, Owner: owner, StorageClass: u.Object.storageClass(),
			Initiated: timeText(u.Initiated), ChecksumAlgorithm: u.ChecksumAlgorithm, ChecksumType: u.ChecksumType,
		})
	}
	if doc.IsTruncated {
		m := encode(lastKey)
		doc.NextKeyMarker, doc.NextUploadIDMarker = &m, lastID
	}
	return c.sendXML(http.StatusOK, doc)
}
