package emulator

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// completeXML is the body of a Complete.
type completeXML struct {
	XMLName xml.Name       `xml:"CompleteMultipartUpload"`
	Parts   []completePart `xml:"Part"`
}

type completePart struct {
	Number    int `xml:"PartNumber"`
	ETag      string
	CRC32     string `xml:"ChecksumCRC32"`
	CRC32C    string `xml:"ChecksumCRC32C"`
	CRC64NVME string `xml:"ChecksumCRC64NVME"`
	SHA1      string `xml:"ChecksumSHA1"`
	SHA256    string `xml:"ChecksumSHA256"`
}

// checksum returns the value that the client names for an algorithm.
func (p completePart) checksum(name string) string {
	switch name {
	case "CRC32":
		return p.CRC32
	case "CRC32C":
		return p.CRC32C
	case "CRC64NVME":
		return p.CRC64NVME
	case "SHA1":
		return p.SHA1
	case "SHA256":
		return p.SHA256
	}
	return ""
}

// choose checks the list of a Complete against the parts that came and returns
// them in order.
func choose(list []completePart, u *upload) ([]uploadPart, error) {
	if len(list) == 0 {
		return nil, errMalformedXML()
	}
	have := map[int]uploadPart{}
	for _, p := range u.partList() {
		have[p.Number] = p
	}
	chosen := make([]uploadPart, 0, len(list))
	for i, want := range list {
		if i > 0 && want.Number <= list[i-1].Number {
			return nil, fail("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.").with("UploadId", u.ID)
		}
		p, ok := have[want.Number]
		if !ok || strings.Trim(strings.TrimSpace(want.ETag), `"`) != p.ETag {
			return nil, errInvalidPart(u, want.Number)
		}
		for _, a := range checksumAlgorithms {
			if v := want.checksum(a.name); v != "" && (p.Checksum.Algorithm != a.name || p.Checksum.Value != v) {
				return nil, errInvalidPart(u, want.Number)
			}
		}
		if u.ChecksumType == composite && want.checksum(u.ChecksumAlgorithm) == "" {
			return nil, fail("InvalidRequest", "The upload was created using a %s checksum. The complete request must include the checksum for each part. It was missing for part %d in the request.", strings.ToLower(u.ChecksumAlgorithm), want.Number)
		}
		chosen = append(chosen, p)
	}
	for _, p := range chosen[:len(chosen)-1] {
		if p.Segment.Size < minPartSize {
			return nil, fail("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size").
				with("PartNumber", strconv.Itoa(p.Number)).with("ProposedSize", strconv.FormatInt(p.Segment.Size, 10)).
				with("MinSizeAllowed", strconv.Itoa(minPartSize)).with("ETag", p.ETag)
		}
	}
	return chosen, nil
}

func errInvalidPart(u *upload, number int) *apiError {
	return fail("InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.").
		with("UploadId", u.ID).with("PartNumber", strconv.Itoa(number))
}

func (s *Server) completeUpload(c *call) error {
	h := c.r.Header
	customer, err := s.customer(c, customerPrefix)
	if err != nil {
		return err
	}
	// The checksum headers of a Complete are the object's and not the body's.
	var doc completeXML
	body, err := c.completeBody()
	if err != nil {
		return err
	}
	if err := parseXML(body, &doc); err != nil {
		return err
	}
	cond, err := writeCondition(h)
	if err != nil {
		return err
	}
	id := c.query.Get("uploadId")
	u, err := c.bucket.uploadOf(c.key, id)
	if err != nil {
		// A client that lost the answer asks again.
		if v := c.bucket.completedAs(c.key, id); v != nil && !s.dialect.completeOnce {
			return s.sendCompleted(c, v)
		}
		return err
	}
	u.commit.Lock()
	defer u.commit.Unlock()
	if v := c.bucket.completedAs(c.key, id); v != nil && !s.dialect.completeOnce {
		return s.sendCompleted(c, v)
	}
	if _, err := c.bucket.uploadOf(c.key, id); err != nil {
		return err
	}
	// The key is needed only where the object gets a checksum of its own.
	if customer != nil || u.ChecksumAlgorithm != "" {
		if err := u.Object.SSE.admitPart(customer); err != nil {
			return err
		}
	}
	v, err := s.assemble(c, u, doc.Parts)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, seg := range v.Segments {
		keep[seg.ID] = true
	}
	if err := c.bucket.commit(v, cond); err != nil {
		s.discardJoined(c.bucket, u, v)
		return err
	}
	if err := c.bucket.endUpload(u, keep); err != nil {
		// The object is there; what is left of the upload goes at the next New.
		s.cfg.Logger.Warn("emulator: remove a completed upload", "upload", u.ID, "err", err)
	}
	return s.sendCompleted(c, v)
}

// completeBody reads the body of a Complete.
func (c *call) completeBody() ([]byte, error) {
	kept := http.Header{}
	for _, a := range checksumAlgorithms {
		if v := c.r.Header.Get(a.header()); v != "" {
			kept.Set(a.header(), v)
			c.r.Header.Del(a.header())
		}
	}
	body, _, err := c.document()
	for name := range kept {
		c.r.Header.Set(name, kept.Get(name))
	}
	return body, err
}

// assemble makes the version of u's chosen parts. Encrypted parts stay
// segments of their own; plaintext is joined into one file.
func (s *Server) assemble(c *call, u *upload, list []completePart) (*version, error) {
	parts, err := choose(list, u)
	if err != nil {
		return nil, err
	}
	v := u.Object
	v.Upload = u.ID
	sum := md5.New()
	v.Parts = make([]objectPart, len(parts))
	for i, p := range parts {
		raw, err := hex.DecodeString(p.ETag)
		if err != nil {
			return nil, err
		}
		sum.Write(raw)
		v.Size += p.Segment.Size
		v.Segments = append(v.Segments, p.Segment)
		v.Parts[i] = objectPart{Number: p.Number, Size: p.Segment.Size}
		if u.ChecksumAlgorithm != "" {
			v.Parts[i].Checksum = p.Checksum.Value
		}
	}
	v.ETag = fmt.Sprintf("%x-%d", sum.Sum(nil), len(parts))
	if v.Size > maxObject {
		return nil, fail("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
	}
	if text := c.r.Header.Get("X-Amz-Mp-Object-Size"); text != "" && text != strconv.FormatInt(v.Size, 10) {
		return nil, fail("InvalidRequest", "The provided 'x-amz-mp-object-size' header value %s does not match what was computed: %d", text, v.Size)
	}
	if a := checksumByName(u.ChecksumAlgorithm); a != nil {
		if v.Checksum, err = joinChecksums(a, u.ChecksumType, v.Parts); err != nil {
			return nil, err
		}
		if want := c.r.Header.Get(a.header()); want != "" && want != v.Checksum.Value && want != strings.TrimSuffix(v.Checksum.Value, fmt.Sprintf("-%d", len(parts))) {
			return nil, fail("BadDigest", "The %s you specified did not match the calculated checksum.", a.name)
		}
	}
	if v.SSE.encrypted() || len(v.Segments) == 1 {
		return &v, nil
	}
	joined, err := s.join(c.bucket, v.Segments, v.Size)
	if err != nil {
		return nil, err
	}
	v.Segments = []segment{joined}
	return &v, nil
}

// join copies plaintext segments into one.
func (s *Server) join(b *bucket, segs []segment, size int64) (segment, error) {
	w, err := s.vault.create(nil)
	if err != nil {
		return segment{}, err
	}
	defer w.abort()
	if err := s.vault.writeRange(w, b.dataDir(), segs, nil, 0, size); err != nil {
		return segment{}, err
	}
	return w.finish(b.dataDir())
}

// discardJoined removes the file that assemble made for v, if it made one.
func (s *Server) discardJoined(b *bucket, u *upload, v *version) {
	if !v.SSE.encrypted() && len(v.Parts) > 1 {
		s.vault.remove(b.dataDir(), v.Segments)
	}
}

// scheme begins the URL by which the client came.
func (c *call) scheme() string {
	if c.r.TLS != nil {
		return "https://"
	}
	return "http://"
}

func (s *Server) sendCompleted(c *call, v *version) error {
	var doc struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		Xmlns    string   `xml:"xmlns,attr"`
		Location string
		Bucket   string
		Key      keyText
		ETag     string
		checksumXML
	}
	doc.Xmlns, doc.Bucket, doc.Key, doc.ETag = xmlns, c.bucket.name, keyText{escapeXML(c.key)}, quoted(v.ETag)
	doc.Location = c.scheme() + c.r.Host + "/" + c.bucket.name + "/" + uriEncode(c.key, true)
	doc.set(v.Checksum)
	s.showWrite(c, v.SSE, nil)
	c.showVersion(v)
	return c.sendXML(http.StatusOK, doc)
}

// checksumXML are the elements that show a checksum in a document.
type checksumXML struct {
	CRC32     string `xml:"ChecksumCRC32,omitempty"`
	CRC32C    string `xml:"ChecksumCRC32C,omitempty"`
	CRC64NVME string `xml:"ChecksumCRC64NVME,omitempty"`
	SHA1      string `xml:"ChecksumSHA1,omitempty"`
	SHA256    string `xml:"ChecksumSHA256,omitempty"`
	Type      string `xml:"ChecksumType,omitempty"`
}

func (x *checksumXML) set(sum checksum) {
	switch sum.Algorithm {
	case "CRC32":
		x.CRC32 = sum.Value
	case "CRC32C":
		x.CRC32C = sum.Value
	case "CRC64NVME":
		x.CRC64NVME = sum.Value
	case "SHA1":
		x.SHA1 = sum.Value
	case "SHA256":
		x.SHA256 = sum.Value
	}
	x.Type = sum.Type
}
