package emulator

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxPage is the most entries of a page.
const maxPage = 1000

// number reads a query value that counts something: absent is def, above most
// is most.
func (c *call) number(name string, def, most int) (int, error) {
	text := c.query.Get(name)
	if text == "" {
		return min(def, most), nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<31-1 {
		return 0, fail("InvalidArgument", "Argument %s must be an integer between 0 and 2147483647", name).with("ArgumentName", name).with("ArgumentValue", text)
	}
	return min(n, most), nil
}

// keyText is a key in a document, escaped by hand: encoding/xml replaces
// control characters, S3 writes them as references.
type keyText struct {
	Text string `xml:",innerxml"`
}

// encoder writes keys as encoding-type asks for.
func (s *Server) encoder(c *call) (encode func(string) keyText, kind string, err error) {
	urlEncode := func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }
	if s.dialect.scalityLists {
		urlEncode = func(s string) string { return uriEncode(s, true) }
	}
	switch kind = c.query.Get("encoding-type"); kind {
	case "":
		return func(s string) keyText { return keyText{escapeXML(s)} }, "", nil
	case "url":
		return func(s string) keyText {
			return keyText{urlEncode(s)}
		}, kind, nil
	}
	return nil, "", fail("InvalidArgument", "Invalid Encoding Method specified in Request").with("ArgumentName", "encoding-type").with("ArgumentValue", kind)
}

func escapeXML(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '&':
			b.WriteString("&amp;")
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '"':
			b.WriteString("&quot;")
		case r < 0x20 || r == 0x7f || r == 0xfffe || r == 0xffff:
			b.WriteString("&#x" + strconv.FormatInt(int64(r), 16) + ";")
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Continuation tokens are opaque to clients: the last name of a page.
func encodeToken(name string) string {
	return base64.RawURLEncoding.EncodeToString([]byte("1" + name))
}

func decodeToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 1 || b[0] != '1' {
		return "", fail("InvalidArgument", "The continuation token provided is incorrect").with("ArgumentName", "continuation-token")
	}
	return string(b[1:]), nil
}

type prefixXML struct{ Prefix keyText }

type contentXML struct {
	Key               keyText
	LastModified      string
	ETag              string
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              int64
	Owner             *ownerXML `xml:",omitempty"`
	StorageClass      string
}

type listXML struct {
	XMLName      xml.Name `xml:"ListBucketResult"`
	Xmlns        string   `xml:"xmlns,attr"`
	Name         string
	Prefix       keyText
	Marker       *keyText `xml:",omitempty"`
	NextMarker   *keyText `xml:",omitempty"`
	StartAfter   *keyText `xml:",omitempty"`
	Token        *string  `xml:"ContinuationToken,omitempty"`
	NextToken    string   `xml:"NextContinuationToken,omitempty"`
	KeyCount     *int     `xml:",omitempty"`
	MaxKeys      int
	Delimiter    *keyText `xml:",omitempty"`
	EncodingType string   `xml:",omitempty"`
	IsTruncated  bool
	Contents     []contentXML
	Prefixes     []prefixXML `xml:"CommonPrefixes"`
}

// page fills what both versions of ListObjects share and returns the page's
// last name.
func (s *Server) page(c *call, doc *listXML, after string, owners bool) (last string, err error) {
	encode, kind, err := s.encoder(c)
	if err != nil {
		return "", err
	}
	limit, err := c.number("max-keys", maxPage, maxPage)
	if err != nil {
		return "", err
	}
	q := listQuery{prefix: c.query.Get("prefix"), delimiter: c.query.Get("delimiter"), after: after, max: limit}
	items, truncated := c.bucket.list(q, false)
	doc.Xmlns, doc.Name, doc.Prefix, doc.MaxKeys = xmlns, c.bucket.name, encode(q.prefix), limit
	doc.EncodingType, doc.IsTruncated = kind, truncated
	if q.delimiter != "" {
		d := encode(q.delimiter)
		doc.Delimiter = &d
	}
	for _, it := range items {
		last = it.name()
		if it.v == nil {
			doc.Prefixes = append(doc.Prefixes, prefixXML{encode(it.prefix)})
			continue
		}
		entry := contentXML{
			Key: encode(it.v.Key), LastModified: timeText(it.v.modified()), ETag: quoted(it.v.ETag),
			ChecksumAlgorithm: it.v.Checksum.Algorithm, ChecksumType: it.v.Checksum.Type,
			Size: it.v.Size, StorageClass: it.v.storageClass(),
		}
		if owners {
			entry.Owner = &owner
		}
		doc.Contents = append(doc.Contents, entry)
	}
	return last, nil
}

func (s *Server) listObjects(c *call) error {
	var doc listXML
	marker := c.query.Get("marker")
	last, err := s.page(c, &doc, marker, true)
	if err != nil {
		return err
	}
	encode, _, err := s.encoder(c)
	if err != nil {
		return err
	}
	m := encode(marker)
	doc.Marker = &m
	if doc.IsTruncated && doc.Delimiter != nil {
		next := encode(last)
		doc.NextMarker = &next
	}
	return c.sendXML(http.StatusOK, doc)
}

func (s *Server) listObjectsV2(c *call) error {
	if c.query.Get("list-type") != "2" {
		return fail("InvalidArgument", "Invalid List Type specified in Request").with("ArgumentName", "list-type")
	}
	var doc listXML
	token := c.query.Get("continuation-token")
	if token == "" && c.query.Has("continuation-token") {
		return fail("InvalidArgument", "The continuation token provided is incorrect").with("ArgumentName", "continuation-token")
	}
	after, err := decodeToken(token)
	if err != nil {
		return err
	}
	startAfter := c.query.Get("start-after")
	if token == "" {
		after = startAfter
	}
	last, err := s.page(c, &doc, after, c.query.Get("fetch-owner") == "true")
	if err != nil {
		return err
	}
	if startAfter != "" {
		encode, _, err := s.encoder(c)
		if err != nil {
			return err
		}
		m := encode(startAfter)
		doc.StartAfter = &m
	}
	count := len(doc.Contents) + len(doc.Prefixes)
	if s.cfg.LossyV2 && count == maxPage {
		doc.IsTruncated = false
	}
	if token != "" || s.dialect.scalityLists {
		doc.Token = &token
	}
	if s.dialect.scalityLists {
		count = len(doc.Contents)
		if doc.MaxKeys, err = c.number("max-keys", maxPage, 1<<31-1); err != nil {
			return err
		}
	}
	doc.KeyCount = &count
	if doc.IsTruncated {
		doc.NextToken = encodeToken(last)
	}
	return c.sendXML(http.StatusOK, doc)
}

type versionXML struct {
	XMLName           xml.Name // Version or DeleteMarker
	Key               keyText
	VersionID         string `xml:"VersionId"`
	IsLatest          bool
	LastModified      string
	ETag              string `xml:",omitempty"`
	ChecksumAlgorithm string `xml:",omitempty"`
	ChecksumType      string `xml:",omitempty"`
	Size              *int64 `xml:",omitempty"`
	StorageClass      string `xml:",omitempty"`
	Owner             ownerXML
}

func (s *Server) listVersions(c *call) error {
	encode, kind, err := s.encoder(c)
	if err != nil {
		return err
	}
	limit, err := c.number("max-keys", maxPage, maxPage)
	if err != nil {
		return err
	}
	q := listQuery{
		prefix: c.query.Get("prefix"), delimiter: c.query.Get("delimiter"),
		after: c.query.Get("key-marker"), afterVersion: c.query.Get("version-id-marker"), max: limit,
	}
	if q.afterVersion != "" && q.after == "" {
		return fail("InvalidArgument", "A version-id marker cannot be specified without a key marker.").with("ArgumentName", "version-id-marker")
	}
	var doc struct {
		XMLName             xml.Name `xml:"ListVersionsResult"`
		Xmlns               string   `xml:"xmlns,attr"`
		Name                string
		Prefix              keyText
		KeyMarker           keyText
		VersionIDMarker     string   `xml:"VersionIdMarker"`
		NextKeyMarker       *keyText `xml:",omitempty"`
		NextVersionIDMarker string   `xml:"NextVersionIdMarker,omitempty"`
		MaxKeys             int
		Delimiter           *keyText `xml:",omitempty"`
		EncodingType        string   `xml:",omitempty"`
		IsTruncated         bool
		Versions            []versionXML
		Prefixes            []prefixXML `xml:"CommonPrefixes"`
	}
	items, truncated := c.bucket.list(q, true)
	doc.Xmlns, doc.Name, doc.Prefix, doc.KeyMarker = xmlns, c.bucket.name, encode(q.prefix), encode(q.after)
	doc.VersionIDMarker, doc.MaxKeys, doc.EncodingType, doc.IsTruncated = q.afterVersion, limit, kind, truncated
	if q.delimiter != "" {
		d := encode(q.delimiter)
		doc.Delimiter = &d
	}
	for _, it := range items {
		if it.v == nil {
			doc.Prefixes = append(doc.Prefixes, prefixXML{encode(it.prefix)})
			continue
		}
		x := versionXML{
			XMLName: xml.Name{Local: "Version"}, Key: encode(it.v.Key), VersionID: it.v.ID, IsLatest: it.latest,
			LastModified: timeText(it.v.modified()), Owner: owner,
		}
		if it.v.DeleteMarker {
			x.XMLName.Local = "DeleteMarker"
		} else {
			x.ETag, x.Size, x.StorageClass = quoted(it.v.ETag), &it.v.Size, it.v.storageClass()
			x.ChecksumAlgorithm, x.ChecksumType = it.v.Checksum.Algorithm, it.v.Checksum.Type
		}
		doc.Versions = append(doc.Versions, x)
	}
	if truncated {
		last := items[len(items)-1]
		m := encode(last.name())
		doc.NextKeyMarker = &m
		if last.v != nil {
			doc.NextVersionIDMarker = last.v.ID
		}
	}
	return c.sendXML(http.StatusOK, doc)
}
