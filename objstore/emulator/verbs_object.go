package emulator

import (
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxPut is the largest body of a PUT or a part: 5 GiB.
const maxPut = 5 << 30

// copyBuffer is how much of a body is held at a time, in bytes.
const copyBuffer = 256 << 10

// received is a body that lies in a segment and is not yet an object.
type received struct {
	seg    segment
	digest *digest
}

// receive stores the body of a PUT or part under the bucket, checked by all
// that the request announces; alg is the checksum to compute, want's or another
// when want has none; root seals the bytes. On an error nothing is left.
func (s *Server) receive(c *call, want wantedChecksum, alg *checksumAlgorithm, root *rootKey) (received, error) {
	p, err := c.payload()
	if err != nil {
		return received{}, err
	}
	if p.size > maxPut {
		return received{}, fail("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size").
			with("ProposedSize", strconv.FormatInt(p.size, 10)).with("MaxSizeAllowed", strconv.FormatInt(maxPut, 10))
	}
	w, err := s.vault.create(root)
	if err != nil {
		return received{}, err
	}
	defer w.abort()
	d := newDigest(true, alg)
	if err := pump(io.MultiWriter(d, w), p, p.size); err != nil {
		return received{}, err
	}
	contentMD5 := c.r.Header.Get("Content-Md5")
	if err := d.verify(want, contentMD5, p.trailer()); err != nil {
		if e := (*apiError)(nil); s.dialect.badChecksum != "" && contentMD5 == "" && errors.As(err, &e) && e.Code == "BadDigest" {
			e.Code = s.dialect.badChecksum
		}
		return received{}, err
	}
	seg, err := w.finish(c.bucket.dataDir())
	return received{seg: seg, digest: d}, err
}

// pump is io.Copy with a buffer that fits the expected size.
func pump(dst io.Writer, src io.Reader, size int64) error {
	buf := make([]byte, min(max(size, 512), copyBuffer))
	_, err := io.CopyBuffer(dst, struct{ io.Reader }{src}, buf)
	return err
}

// newVersion starts a version from a request's headers.
func newVersion(key string, h http.Header) (*version, error) {
	meta, err := readMeta(h)
	if err != nil {
		return nil, err
	}
	tags, err := readTags(h)
	if err != nil {
		return nil, err
	}
	class, err := readStorageClass(h)
	if err != nil {
		return nil, err
	}
	for name := range h {
		if strings.HasPrefix(name, "X-Amz-Object-Lock-") {
			return nil, fail("InvalidRequest", "Bucket is missing Object Lock Configuration")
		}
	}
	return &version{Key: key, Headers: readHeaders(h), Meta: meta, Tags: tags, StorageClass: class}, nil
}

func (s *Server) putObject(c *call) error {
	h := c.r.Header
	if h.Get("X-Amz-Write-Offset-Bytes") != "" {
		return errNotImplemented()
	}
	v, err := newVersion(c.key, h)
	if err != nil {
		return err
	}
	cond, err := writeCondition(h)
	if err != nil {
		return err
	}
	how, err := s.protect(c)
	if err != nil {
		return err
	}
	v.SSE = how.state
	want, err := readWanted(h)
	if err != nil {
		return err
	}
	got, err := s.receive(c, want, want.algorithm, how.root)
	if err != nil {
		return err
	}
	v.Segments, v.Size, v.ETag, v.Checksum = []segment{got.seg}, got.seg.Size, s.dialect.etag(v.SSE, got.digest), got.digest.checksum()
	if err := c.bucket.commit(v, cond); err != nil {
		s.vault.remove(c.bucket.dataDir(), v.Segments)
		return err
	}
	out := c.w.Header()
	out.Set("ETag", quoted(v.ETag))
	s.showWrite(c, v.SSE, how.customer)
	c.showVersion(v)
	showChecksum(out, v.Checksum)
	return c.send(http.StatusOK)
}

// showVersion puts the version id, where the bucket keeps or kept versions.
func (c *call) showVersion(v *version) {
	if v.ID != nullVersion || c.bucket.config().Versioning != "" {
		c.w.Header().Set("x-amz-version-id", v.ID)
	}
}

func showChecksum(h http.Header, sum checksum) {
	if a := checksumByName(sum.Algorithm); a != nil {
		h.Set(a.header(), sum.Value)
		h.Set("x-amz-checksum-type", sum.Type)
	}
}

// getObject answers GET and HEAD.
func (s *Server) getObject(c *call) error {
	h, out := c.r.Header, c.w.Header()
	customer, err := s.customer(c, customerPrefix)
	if err != nil {
		return err
	}
	body, err := c.bucket.open(c.key, c.query.Get("versionId"))
	if err != nil {
		return err
	}
	defer body.Close()
	v := body.v
	if err := v.SSE.admit(customer); err != nil {
		return err
	}
	out.Set("ETag", quoted(v.ETag))
	out.Set("Last-Modified", v.modified().Format(http.TimeFormat))
	c.showVersion(v)
	if err := readCondition(h, "", v); err != nil {
		return err
	}
	off, n, status, err := c.selected(v)
	if err != nil {
		return err
	}
	if c.r.Method != http.MethodHead {
		if v.archived(s.clock.now()) {
			return errArchived(v)
		}
		if body.root, err = s.root(c, c.bucket.name, c.key, v.SSE, customer); err != nil {
			return err
		}
	}
	v.Headers.show(out)
	for name, value := range v.Meta {
		// The map is written to past canonicalization: names go out in lower
		// case, as S3 sends them.
		out["x-amz-meta-"+name] = []string{encodeMeta(value)}
	}
	for name, values := range c.query {
		if kept, ok := strings.CutPrefix(name, "response-"); ok && len(values) > 0 {
			out.Set(kept, values[0])
		}
	}
	if v.StorageClass != "" {
		out.Set("x-amz-storage-class", v.StorageClass)
	}
	c.showRestore(v)
	if len(v.Tags) > 0 {
		out.Set("x-amz-tagging-count", strconv.Itoa(len(v.Tags)))
	}
	v.SSE.show(out, customer)
	out.Set("Accept-Ranges", "bytes")
	out.Set("Content-Length", strconv.FormatInt(n, 10))
	if status == http.StatusPartialContent {
		out.Set("Content-Range", contentRange(off, n, v.Size))
	}
	c.showReadChecksum(v, status)
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	return body.writeRange(c.w, off, n)
}

// selected finds the bytes that a GET asks for by Range or partNumber.
func (c *call) selected(v *version) (off, n int64, status int, err error) {
	rangeText := c.r.Header.Get("Range")
	if text := c.query.Get("partNumber"); text != "" {
		number, err := strconv.Atoi(text)
		if err != nil || number < 1 || number > maxPartNumber {
			return 0, 0, 0, errPartNumber()
		}
		if rangeText != "" {
			return 0, 0, 0, fail("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
		}
		off, n, _, ok := v.partRange(number)
		if !ok {
			return 0, 0, 0, fail("InvalidPartNumber", "The requested partnumber is not satisfiable").with("PartNumberRequested", text)
		}
		if len(v.Parts) > 0 {
			c.w.Header().Set("x-amz-mp-parts-count", strconv.Itoa(len(v.Parts)))
		}
		if n == 0 {
			return 0, 0, http.StatusOK, nil
		}
		return off, n, http.StatusPartialContent, nil
	}
	off, n, given, ok := parseRange(rangeText, v.Size)
	switch {
	case !ok:
		return 0, 0, 0, fail("InvalidRange", "The requested range is not satisfiable").with("RangeRequested", rangeText).
			with("ActualObjectSize", strconv.FormatInt(v.Size, 10)).withHeader("Content-Range", "bytes */"+strconv.FormatInt(v.Size, 10))
	case given:
		return off, n, http.StatusPartialContent, nil
	}
	return 0, v.Size, http.StatusOK, nil
}

// showReadChecksum shows the checksum of what is sent: of the whole object or
// of one part. A range has none.
func (c *call) showReadChecksum(v *version, status int) {
	if !strings.EqualFold(c.r.Header.Get("X-Amz-Checksum-Mode"), "ENABLED") {
		return
	}
	sum := v.Checksum
	if status == http.StatusPartialContent {
		number, err := strconv.Atoi(c.query.Get("partNumber"))
		if err != nil {
			return
		}
		_, _, p, ok := v.partRange(number)
		if !ok || p.Checksum == "" {
			return
		}
		sum.Value = p.Checksum
	}
	showChecksum(c.w.Header(), sum)
}

func contentRange(off, n, size int64) string {
	return "bytes " + strconv.FormatInt(off, 10) + "-" + strconv.FormatInt(off+n-1, 10) + "/" + strconv.FormatInt(size, 10)
}

// parseRange reads a Range header against an object of size bytes. given is
// false for what is to be answered with the whole object: no header, one that
// does not parse, several ranges. ok is false for a range that no byte of the
// object satisfies.
func parseRange(text string, size int64) (off, n int64, given, ok bool) {
	spec, isBytes := strings.CutPrefix(strings.TrimSpace(text), "bytes=")
	first, last, dash := strings.Cut(spec, "-")
	if !isBytes || !dash || strings.Contains(spec, ",") {
		return 0, size, false, true
	}
	first, last = strings.TrimSpace(first), strings.TrimSpace(last)
	if first == "" {
		suffix, err := strconv.ParseInt(last, 10, 64)
		switch {
		case err != nil || suffix < 0:
			return 0, size, false, true
		case suffix == 0 || size == 0:
			return 0, 0, true, false
		}
		suffix = min(suffix, size)
		return size - suffix, suffix, true, true
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil || from < 0 {
		return 0, size, false, true
	}
	to := size - 1
	if last != "" {
		end, err := strconv.ParseInt(last, 10, 64)
		if err != nil || end < from {
			return 0, size, false, true
		}
		to = min(to, end)
	}
	if from >= size {
		return 0, 0, true, false
	}
	return from, to - from + 1, true, true
}

func (s *Server) deleteObject(c *call) error {
	cond, err := writeCondition(c.r.Header)
	if err != nil {
		return err
	}
	d, err := c.bucket.delete(c.key, c.query.Get("versionId"), cond)
	if err != nil {
		return err
	}
	if d.marker {
		c.w.Header().Set("x-amz-delete-marker", "true")
	}
	if d.versionID != "" {
		c.w.Header().Set("x-amz-version-id", d.versionID)
	}
	return c.send(http.StatusNoContent)
}

type deleteXML struct {
	XMLName xml.Name `xml:"Delete"`
	Quiet   bool
	Objects []struct {
		Key       string
		VersionID string `xml:"VersionId"`
		ETag      string
	} `xml:"Object"`
}

// maxDelete is the most keys of one DeleteObjects.
const maxDelete = 1000

func (s *Server) deleteObjects(c *call) error {
	body, checked, err := c.document()
	if err != nil {
		return err
	}
	if s.dialect.deleteNeedsMD5 && c.r.Header.Get("Content-Md5") == "" {
		return fail("BadDigest", "The Content-MD5 you specified did not match what we received.")
	}
	if !checked {
		return fail("InvalidRequest", "Missing required header for this request: Content-MD5 OR x-amz-checksum-*")
	}
	var doc deleteXML
	if err := parseXML(body, &doc); err != nil {
		return err
	}
	if len(doc.Objects) == 0 || len(doc.Objects) > maxDelete {
		return errMalformedXML()
	}
	type deletedXML struct {
		Key             string
		VersionID       string `xml:"VersionId,omitempty"`
		DeleteMarker    bool   `xml:",omitempty"`
		MarkerVersionID string `xml:"DeleteMarkerVersionId,omitempty"`
	}
	type failedXML struct {
		Key       string
		VersionID string `xml:"VersionId,omitempty"`
		Code      string
		Message   string
	}
	var out struct {
		XMLName xml.Name     `xml:"DeleteResult"`
		Xmlns   string       `xml:"xmlns,attr"`
		Deleted []deletedXML `xml:"Deleted"`
		Failed  []failedXML  `xml:"Error"`
	}
	out.Xmlns = xmlns
	for _, o := range doc.Objects {
		if o.Key == "" {
			return errMalformedXML()
		}
	}
	for _, o := range doc.Objects {
		var d deletion
		err := s.dialect.checkKey(o.Key)
		if err == nil {
			cond := condition{match: etagList(o.ETag)}
			if among(s.dialect.unconditional, c.verb) {
				cond = condition{}
			}
			d, err = c.bucket.delete(o.Key, o.VersionID, cond)
		}
		if err != nil {
			e := asAPIError(err)
			out.Failed = append(out.Failed, failedXML{o.Key, o.VersionID, e.Code, e.Message})
			continue
		}
		if doc.Quiet {
			continue
		}
		x := deletedXML{Key: o.Key, VersionID: o.VersionID, DeleteMarker: d.marker}
		if d.marker {
			x.MarkerVersionID = d.versionID
		}
		out.Deleted = append(out.Deleted, x)
	}
	return c.sendXML(http.StatusOK, out)
}
