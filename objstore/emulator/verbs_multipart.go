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

func (s *Server) createUpload(c *call) error {
	h := c.r.Header
	v, err := newVersion(c.key, h)
	if err != nil {
		return err
	}
	if v.SSE, err = s.dialect.newObjectSSE(h, c.bucket.config().Encryption); err != nil {
		return err
	}
	conf := uploadConfig{ID: newID(), Initiated: s.clock.now().UTC(), Object: *v}
	if conf.ChecksumAlgorithm, conf.ChecksumType, err = readUploadChecksum(h); err != nil {
		return err
	}
	u, err := c.bucket.startUpload(conf)
	if err != nil {
		return err
	}
	out := c.w.Header()
	s.dialect.showWrite(out, h, v.SSE)
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

func (s *Server) uploadPart(c *call) error {
	h := c.r.Header
	if err := s.dialect.refuseCustomerKey(h); err != nil {
		return err
	}
	u, number, err := c.partOf()
	if err != nil {
		return err
	}
	want, err := readWanted(h)
	if err != nil {
		return err
	}
	if err := u.checkPartChecksum(&want); err != nil {
		return err
	}
	got, err := s.receive(c, want, u.Object.SSE.encrypted())
	if err != nil {
		return err
	}
	p := uploadPart{Number: number, Segment: got.seg, ETag: got.digest.etag(), Checksum: got.digest.checksum(), Modified: s.clock.now().UTC()}
	if err := c.bucket.addPart(u, p); err != nil {
		s.vault.remove(c.bucket.dataDir(), []segment{p.Segment})
		return err
	}
	out := c.w.Header()
	out.Set("ETag", quoted(p.ETag))
	s.dialect.showWrite(out, h, u.Object.SSE)
	if a := checksumByName(p.Checksum.Algorithm); a != nil {
		out.Set(a.header(), p.Checksum.Value)
	}
	return c.send(http.StatusOK)
}

// checkPartChecksum compares a part's checksum with what the upload was
// created for. Where the whole object's checksum is computed of the parts', a
// part that came without one gets it computed.
func (u *upload) checkPartChecksum(want *wantedChecksum) error {
	if u.ChecksumAlgorithm == "" {
		return nil
	}
	got := "null"
	if want.algorithm != nil {
		got = want.algorithm.name
	}
	switch {
	case got == u.ChecksumAlgorithm:
		return nil
	case got == "null" && u.ChecksumType == fullObject:
		return nil
	}
	return fail("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: %s, actual checksum Type: %s", strings.ToLower(u.ChecksumAlgorithm), strings.ToLower(got))
}

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
	if err := s.dialect.refuseCustomerKey(h); err != nil {
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
		if v := c.bucket.completedAs(c.key, id); v != nil {
			return s.sendCompleted(c, v)
		}
		return err
	}
	u.commit.Lock()
	defer u.commit.Unlock()
	if v := c.bucket.completedAs(c.key, id); v != nil {
		return s.sendCompleted(c, v)
	}
	if _, err := c.bucket.uploadOf(c.key, id); err != nil {
		return err
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
	src, err := s.vault.openSegments(b.dataDir(), segs)
	if err != nil {
		return segment{}, err
	}
	defer src.Close()
	w, err := s.vault.create(false)
	if err != nil {
		return segment{}, err
	}
	defer w.abort()
	if err := src.writeRange(w, 0, size); err != nil {
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
	doc.Location = "http://" + c.r.Host + "/" + c.bucket.name + "/" + uriEncode(c.key, true)
	doc.set(v.Checksum)
	s.dialect.showWrite(c.w.Header(), c.r.Header, v.SSE)
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

func (s *Server) listParts(c *call) error {
	u, err := c.bucket.uploadOf(c.key, c.query.Get("uploadId"))
	if err != nil {
		return err
	}
	encode, kind, err := c.encoder()
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
	encode, kind, err := c.encoder()
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
