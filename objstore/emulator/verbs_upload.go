package emulator

import (
	"encoding/xml"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

func (s *Server) createUpload(c *call) error {
	h := c.r.Header
	v, err := newVersion(c.key, h)
	if err != nil {
		return err
	}
	how, err := s.protect(c)
	if err != nil {
		return err
	}
	v.SSE = how.state
	conf := uploadConfig{ID: newID(), Initiated: s.clock.now().UTC(), Object: *v}
	if conf.ChecksumAlgorithm, conf.ChecksumType, err = readUploadChecksum(h); err != nil {
		return err
	}
	u, err := c.bucket.startUpload(conf)
	if err != nil {
		return err
	}
	out := c.w.Header()
	s.showWrite(c, v.SSE, how.customer)
	if u.ChecksumAlgorithm != "" {
		out.Set("x-amz-checksum-algorithm", u.ChecksumAlgorithm)
		out.Set("x-amz-checksum-type", u.ChecksumType)
	}
	var doc struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Xmlns    string   `xml:"xmlns,attr"`
		Bucket   string
		Key      keyText
		UploadID string `xml:"UploadId"`
	}
	doc.Xmlns, doc.Bucket, doc.Key, doc.UploadID = xmlns, c.bucket.name, keyText{escapeXML(c.key)}, u.ID
	return c.sendXML(http.StatusOK, doc)
}

// readUploadChecksum reads what a Create says about the checksums to come.
func readUploadChecksum(h http.Header) (algorithm, kind string, err error) {
	name, kind := h.Get("X-Amz-Checksum-Algorithm"), h.Get("X-Amz-Checksum-Type")
	if name == "" {
		if kind != "" {
			return "", "", fail("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
		}
		return "", "", nil
	}
	a := checksumByName(name)
	if a == nil {
		return "", "", fail("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]")
	}
	if kind == "" {
		kind = a.defaultType
	}
	if kind != fullObject && kind != composite || kind == fullObject && !a.full || kind == composite && !a.composite {
		return "", "", fail("InvalidRequest", "The %s checksum type cannot be used with the %s checksum algorithm.", kind, strings.ToLower(a.name))
	}
	return a.name, kind, nil
}

func errPartNumber() *apiError {
	return fail("InvalidArgument", "Part number must be an integer between 1 and %d, inclusive", maxPartNumber).with("ArgumentName", "partNumber")
}

// partOf reads which upload and part a request is about.
func (c *call) partOf() (*upload, int, error) {
	number, err := strconv.Atoi(c.query.Get("partNumber"))
	if err != nil || number < 1 || number > maxPartNumber {
		return nil, 0, errPartNumber()
	}
	u, err := c.bucket.uploadOf(c.key, c.query.Get("uploadId"))
	return u, number, err
}

// protectPart finds how a part of u is encrypted: as the upload was created.
func (s *Server) protectPart(c *call, u *upload) (protection, error) {
	customer, err := s.customer(c, customerPrefix)
	if err != nil {
		return protection{}, err
	}
	st := u.Object.SSE
	if err := st.admitPart(customer); err != nil {
		if s.dialect.deniesPartKey && st.Customer != nil && customer != nil {
			err = fail("AccessDenied", "Access Denied")
		}
		return protection{}, err
	}
	root, err := s.root(c, c.bucket.name, c.key, st, customer)
	return protection{st, root, customer}, err
}

func (s *Server) uploadPart(c *call) error {
	h := c.r.Header
	u, number, err := c.partOf()
	if e := (*apiError)(nil); s.dialect.partNoKey && errors.As(err, &e) && e.Code == "NoSuchUpload" {
		err = errNoSuchKey(c.key)
	}
	if err != nil {
		return err
	}
	how, err := s.protectPart(c, u)
	if err != nil {
		return err
	}
	want, err := readWanted(h)
	if err != nil {
		return err
	}
	alg, err := u.partChecksum(want)
	if err != nil {
		return err
	}
	got, err := s.receive(c, want, alg, how.root)
	if err != nil {
		return err
	}
	p := uploadPart{Number: number, Segment: got.seg, ETag: s.dialect.etag(how.state, got.digest), Checksum: got.digest.checksum(), Modified: s.clock.now().UTC()}
	if err := c.bucket.addPart(u, p); err != nil {
		s.vault.remove(c.bucket.dataDir(), []segment{p.Segment})
		return err
	}
	out := c.w.Header()
	out.Set("ETag", quoted(p.ETag))
	s.showWrite(c, how.state, how.customer)
	if a := checksumByName(p.Checksum.Algorithm); a != nil {
		out.Set(a.header(), p.Checksum.Value)
	}
	return c.send(http.StatusOK)
}

// partChecksum compares a part's checksum with what the upload was created
// for and returns the one to compute. Where the whole object's checksum follows
// from the parts', a part that came without one gets it.
func (u *upload) partChecksum(want wantedChecksum) (*checksumAlgorithm, error) {
	switch {
	case u.ChecksumAlgorithm == "" || want.algorithm != nil && want.algorithm.name == u.ChecksumAlgorithm:
		return want.algorithm, nil
	case want.algorithm == nil && u.ChecksumType == fullObject:
		return checksumByName(u.ChecksumAlgorithm), nil
	}
	got := "null"
	if want.algorithm != nil {
		got = strings.ToLower(want.algorithm.name)
	}
	return nil, fail("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", strings.ToLower(u.ChecksumAlgorithm), got)
}

func (s *Server) abortUpload(c *call) error {
	u, err := c.bucket.uploadOf(c.key, c.query.Get("uploadId"))
	if err != nil {
		return err
	}
	u.commit.Lock()
	defer u.commit.Unlock()
	if _, err := c.bucket.uploadOf(c.key, u.ID); err != nil {
		return err
	}
	if err := c.bucket.endUpload(u, nil); err != nil {
		return err
	}
	return c.send(http.StatusNoContent)
}
