package s3store

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"coffer/objstore"

	"github.com/stretchr/testify/require"
)

// against opens the bucket "bucket" of a server that is h alone.
func against(t *testing.T, cfg Config, h http.HandlerFunc) *bucket {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	if cfg.OperationTimeout == 0 {
		cfg.OperationTimeout = 2 * time.Second
	}
	s := testStore(t, []string{"AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s", "AWS_REGION=us-east-1", "AWS_ENDPOINT_URL=" + srv.URL}, cfg)
	return newBucket(s, "bucket", s.region)
}

const content = "0123456789"

func TestRepliesToGetAreChecked(t *testing.T) {
	type reply struct {
		status int
		header map[string]string
		body   string
	}
	for name, c := range map[string]struct {
		rng   objstore.Range
		reply reply
		want  string
		kind  objstore.Kind
	}{
		"whole":                       {objstore.Range{}, reply{200, nil, content}, content, 0},
		"range":                       {objstore.Range{Offset: 2, Length: 3}, reply{206, map[string]string{"Content-Range": "bytes 2-4/10"}, "234"}, "234", 0},
		"range to the end":            {objstore.Range{Offset: 8}, reply{206, map[string]string{"Content-Range": "bytes 8-9/10"}, "89"}, "89", 0},
		"range cut at the end":        {objstore.Range{Offset: 8, Length: 9}, reply{206, map[string]string{"Content-Range": "bytes 8-9/10"}, "89"}, "89", 0},
		"server that ignores ranges":  {objstore.Range{Offset: 2, Length: 3}, reply{200, nil, content}, "234", 0},
		"the same beyond the end":     {objstore.Range{Offset: 10}, reply{200, nil, content}, "", objstore.InvalidRange},
		"other range":                 {objstore.Range{Offset: 2, Length: 3}, reply{206, map[string]string{"Content-Range": "bytes 3-5/10"}, "345"}, "", objstore.Integrity},
		"short range":                 {objstore.Range{Offset: 2, Length: 3}, reply{206, map[string]string{"Content-Range": "bytes 2-3/10"}, "23"}, "", objstore.Integrity},
		"length that differs":         {objstore.Range{Offset: 2, Length: 3}, reply{206, map[string]string{"Content-Range": "bytes 2-4/10"}, "2345"}, "", objstore.Integrity},
		"no content range":            {objstore.Range{Offset: 2, Length: 3}, reply{206, nil, "234"}, "", objstore.Integrity},
		"odd content range":           {objstore.Range{Offset: 2, Length: 3}, reply{206, map[string]string{"Content-Range": "bytes 2-4/*"}, "234"}, "", objstore.Integrity},
		"odd status":                  {objstore.Range{}, reply{202, nil, content}, "", objstore.Integrity},
		"other ETag":                  {objstore.Range{}, reply{200, map[string]string{"ETag": `"other"`}, content}, "", objstore.Stale},
		"no ETag":                     {objstore.Range{}, reply{200, map[string]string{"ETag": ""}, content}, "", objstore.Integrity},
		"right checksum":              {objstore.Range{}, reply{200, map[string]string{"x-amz-checksum-crc32": crcText(crc32.ChecksumIEEE([]byte(content)))}, content}, content, 0},
		"wrong checksum":              {objstore.Range{}, reply{200, map[string]string{"x-amz-checksum-crc32": crcText(1)}, content}, "", objstore.Integrity},
		"wrong SHA-256":               {objstore.Range{}, reply{200, map[string]string{"x-amz-checksum-sha256": base64.StdEncoding.EncodeToString(make([]byte, 32))}, content}, "", objstore.Integrity},
		"CRC64NVME":                   {objstore.Range{}, reply{200, map[string]string{"x-amz-checksum-crc64nvme": "4g0AAAAA"}, content}, "", objstore.Integrity},
		"composite is not compared":   {objstore.Range{}, reply{200, map[string]string{"x-amz-checksum-crc32": crcText(1), "x-amz-checksum-type": "COMPOSITE"}, content}, content, 0},
		"whole checksum with a range": {objstore.Range{Offset: 2, Length: 3}, reply{206, map[string]string{"Content-Range": "bytes 2-4/10", "x-amz-checksum-crc32": crcText(1)}, "234"}, "234", 0},
		"range that is the whole":     {objstore.Range{Length: 10}, reply{206, map[string]string{"Content-Range": "bytes 0-9/10", "x-amz-checksum-crc32": crcText(1)}, content}, "", objstore.Integrity},
	} {
		t.Run(name, func(t *testing.T) {
			b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("ETag", `"tag"`)
				for k, v := range c.reply.header {
					w.Header().Set(k, v)
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(c.reply.body)))
				w.WriteHeader(c.reply.status)
				_, _ = w.Write([]byte(c.reply.body))
			})
			got, err := tryGet(t.Context(), b, objstore.Ref{Key: "key", ETag: "tag"}, c.rng)
			if c.kind != 0 {
				require.ErrorIs(t, err, c.kind)
				require.Empty(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, string(got))
		})
	}
}

func TestCRC64NVMEOfTheSpecification(t *testing.T) {
	// The check value of the CRC catalogue for "123456789".
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"tag"`)
		w.Header().Set("x-amz-checksum-crc64nvme", base64.StdEncoding.EncodeToString([]byte{0xae, 0x8b, 0x14, 0x86, 0x0a, 0x79, 0x98, 0x88}))
		w.Header().Set("x-amz-checksum-type", "FULL_OBJECT")
		_, _ = w.Write([]byte("123456789"))
	})
	require.Equal(t, "123456789", string(get(t, b, objstore.Ref{Key: "key"}, objstore.Range{})))
}

func TestBodyNeverEndsSilently(t *testing.T) {
	// The first replies announce all and break off after some bytes.
	data := random(100_000)
	var calls atomic.Int32
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		var from int
		if rng := r.Header.Get("Range"); rng != "" {
			_, err := fmt.Sscanf(rng, "bytes=%d-", &from)
			if err != nil || r.Header.Get("If-Match") != `"tag"` {
				t.Errorf("range %q, if-match %q", rng, r.Header.Get("If-Match"))
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
		}
		w.Header().Set("ETag", `"tag"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		end := len(data)
		if n < 4 {
			end = from + 10_000
		}
		_, _ = w.Write(data[from:end])
		if n < 4 {
			panic(http.ErrAbortHandler)
		}
	})
	require.Equal(t, data, get(t, b, objstore.Ref{Key: "key"}, objstore.Range{}))
	require.Equal(t, int32(4), calls.Load())
}

func TestBodyThatNeverComesFails(t *testing.T) {
	b := against(t, Config{OperationTimeout: time.Second}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"tag"`)
		w.Header().Set("Content-Length", "100")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	within(t, 5*time.Second, func() {
		_, err := tryGet(t.Context(), b, objstore.Ref{Key: "key"}, objstore.Range{})
		require.ErrorIs(t, err, objstore.Unavailable)
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-4/10", "bytes 0-0/1", "bytes */10", "bytes 1-2/*", "bytes -1-2/3", "bytes 0-99999999999999999999/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, err := parseContentRange(s)
		if err == nil && (first < 0 || first > last || last >= total) {
			t.Errorf("%q gives %d-%d/%d", s, first, last, total)
		}
	})
}

// lister answers listings of keys as a store would that may be broken.
type lister struct {
	keys     []string
	loseV2   bool // V2 calls its first page all, unless start-after is given
	raw      bool // ignores encoding-type
	shuffled bool
	most     int           // entries a page has, if not 0
	takes    time.Duration // a page
	refuses  func(after string) bool
	v1, v2   atomic.Int32

	asked, told    atomic.Int32 // pages, entries
	atOnce, atMost atomic.Int32
}

type listReply struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	IsTruncated bool
	KeyCount    int
	NextMarker  string `xml:",omitempty"`
	NextToken   string `xml:"NextContinuationToken,omitempty"`
	Encoding    string `xml:"EncodingType,omitempty"`
	Contents    []struct {
		Key  string
		Size int
	}
	CommonPrefixes []struct{ Prefix string }
}

func (l *lister) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.atMost.Store(max(l.atMost.Load(), l.atOnce.Add(1)))
	defer l.atOnce.Add(-1)
	time.Sleep(l.takes)
	l.asked.Add(1)
	q := r.URL.Query()
	v2 := q.Get("list-type") == "2"
	after := q.Get("marker")
	if v2 {
		l.v2.Add(1)
		after = max(q.Get("start-after"), q.Get("continuation-token"))
	} else {
		l.v1.Add(1)
	}
	if l.refuses != nil && l.refuses(after) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	most, _ := strconv.Atoi(q.Get("max-keys"))
	if l.most > 0 {
		most = min(most, l.most)
	}
	prefix, delim := q.Get("prefix"), q.Get("delimiter")
	var out listReply
	enc := func(s string) string { return s }
	if q.Get("encoding-type") == "url" && !l.raw {
		out.Encoding, enc = "url", url.QueryEscape
	}
	last := ""
	for _, k := range l.keys {
		if k <= after || !strings.HasPrefix(k, prefix) {
			continue
		}
		group := ""
		if delim != "" {
			if i := strings.Index(k[len(prefix):], delim); i >= 0 {
				group = k[:len(prefix)+i+len(delim)]
			}
		}
		if group != "" && (group == last || group <= after) {
			continue
		}
		if len(out.Contents)+len(out.CommonPrefixes) == most {
			out.IsTruncated = true
			break
		}
		if group != "" {
			out.CommonPrefixes = append(out.CommonPrefixes, struct{ Prefix string }{enc(group)})
			last = group
			continue
		}
		out.Contents = append(out.Contents, struct {
			Key  string
			Size int
		}{enc(k), len(k)})
		last = k
	}
	if l.shuffled {
		slices.Reverse(out.Contents)
	}
	switch {
	case v2 && l.loseV2 && q.Get("start-after") == "":
		out.IsTruncated = false
	case v2 && out.IsTruncated:
		out.NextToken = last
	case out.IsTruncated && delim != "":
		out.NextMarker = enc(last)
	}
	l.told.Add(int32(len(out.Contents) + len(out.CommonPrefixes)))
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(out)
}

func manyKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("k%05d+ä b", i)
	}
	return keys
}

func TestListing(t *testing.T) {
	keys := manyKeys(2500)
	grouped := append([]string{"a/1", "a/2"}, keys...)
	want := append([]string{"a/"}, keys...)
	for name, l := range map[string]*lister{
		"honest": {}, "loses keys": {loseV2: true}, "ignores encoding": {raw: true}, "unsorted pages": {shuffled: true},
	} {
		for _, version := range []string{"auto", "1", "2"} {
			t.Run(name+" "+version, func(t *testing.T) {
				l := &lister{keys: grouped, loseV2: l.loseV2, raw: l.raw, shuffled: l.shuffled}
				b := against(t, Config{ListVersion: version}, l.ServeHTTP)
				got := list(t, b, objstore.Query{Delimiter: "/"})
				if l.loseV2 && version == "2" {
					require.Less(t, len(got), len(want), "V2 by name is not doubted")
					return
				}
				require.Equal(t, want, got)
				require.Equal(t, l.loseV2 && version == "auto", b.losesKeys.Load())
				switch {
				case version == "1":
					require.Zero(t, l.v2.Load())
				case !l.loseV2:
					require.Zero(t, l.v1.Load())
				}
				require.Equal(t, keys[:10], list(t, b, objstore.Query{Delimiter: "/", StartAfter: "a/", Limit: 10}))
				require.Equal(t, keys[1000:1010], list(t, b, objstore.Query{StartAfter: keys[999], Limit: 10}))
				require.Equal(t, []string{"a/1", "a/2"}, list(t, b, objstore.Query{Prefix: "a/"}))
				require.Equal(t, []string{"a/2"}, list(t, b, objstore.Query{Prefix: "a/", StartAfter: "a/1"}))
			})
		}
	}
}

func TestExactlyOnePageIsDoubtedOnce(t *testing.T) {
	l := &lister{keys: manyKeys(1000)}
	b := against(t, Config{}, l.ServeHTTP)
	require.Len(t, list(t, b, objstore.Query{}), 1000)
	require.Equal(t, int32(2), l.v2.Load())
	require.False(t, b.losesKeys.Load())
}

func TestListingInOddOrderIsRefused(t *testing.T) {
	page := 0
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		page++
		fmt.Fprintf(w, `<ListBucketResult><IsTruncated>%t</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents><Key>k%d</Key></Contents></ListBucketResult>`,
			page == 1, 3-page)
	})
	var got []string
	var failed error
	for e, err := range b.List(t.Context(), objstore.Query{}) {
		if failed = err; err == nil {
			got = append(got, e.Key)
		}
	}
	require.Equal(t, []string{"k2"}, got)
	require.ErrorIs(t, failed, objstore.Integrity)
}

func TestEndlessListingIsRefused(t *testing.T) {
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>`)
	})
	for _, err := range b.List(t.Context(), objstore.Query{}) {
		require.ErrorIs(t, err, objstore.Integrity)
	}
}

func TestScratchObjectsAreHidden(t *testing.T) {
	l := &lister{keys: []string{objstore.ScratchPrefix + "1", "a", "dir/" + objstore.ScratchPrefix + "2", "dir/b", "dir/" + objstore.ScratchPrefix[1:]}}
	slices.Sort(l.keys)
	b := against(t, Config{}, l.ServeHTTP)
	require.Equal(t, []string{"a", "dir/b", "dir/coffer-probe-"}, list(t, b, objstore.Query{}))
}

func TestKeysThatXMLCannotCarryAreDeletedAlone(t *testing.T) {
	var single, many atomic.Int32
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			single.Add(1)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		many.Add(1)
		if r.Header.Get("Content-Md5") == "" {
			t.Error("no Content-MD5")
		}
		fmt.Fprint(w, `<DeleteResult><Error><Key>bad</Key><Code>AccessDenied</Code></Error></DeleteResult>`)
	})
	errs := b.Delete(t.Context(), objstore.Ref{Key: "a\x01"}, objstore.Ref{Key: "good"}, objstore.Ref{Key: "bad"})
	require.NoError(t, errs[0])
	require.NoError(t, errs[1])
	require.ErrorIs(t, errs[2], objstore.Permission)
	require.Equal(t, int32(1), single.Load())
	require.Equal(t, int32(1), many.Load())
}

func TestDeleteFallsBackToSingles(t *testing.T) {
	var single atomic.Int32
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			single.Add(1)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.WriteHeader(http.StatusNotImplemented)
	})
	for _, err := range b.Delete(t.Context(), objstore.Ref{Key: "a"}, objstore.Ref{Key: "b"}) {
		require.NoError(t, err)
	}
	require.Equal(t, int32(2), single.Load())
}

// TestReplyToPutWithoutETag, such as a proxy's page: the object that is there
// counts only when it is the one that was sent.
func TestReplyToPutWithoutETag(t *testing.T) {
	for there, want := range map[string]error{content: nil, "the old text": objstore.Integrity} {
		b := against(t, Config{AllowUnencrypted: true}, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.Header().Set("ETag", fmt.Sprintf(`"%x"`, md5.Sum([]byte(there))))
				w.Header().Set("Content-Length", strconv.Itoa(len(there)))
				return
			}
			fmt.Fprint(w, "<html><body>Welcome!</body></html>")
		})
		w := &writer{b: b, key: "key", cur: &partBuffer{pool: &b.s.chunks}}
		_, err := w.cur.Write([]byte(content))
		require.NoError(t, err)
		obj, _, err := w.putWhole(t.Context())
		require.ErrorIs(t, err, want)
		if want == nil {
			require.NotEmpty(t, obj.ETag)
		}
	}
}

// TestRefusalsOfProxies have a status and no code that S3 knows, and are what the
// status says, at once.
func TestRefusalsOfProxies(t *testing.T) {
	for _, body := range []string{"", "Access denied.", `{"error": "no"}`, "<html><body>no<br></body></html>", "<html/>", "<Error><Code>", "\x00"} {
		for status, want := range map[int]struct {
			kind  objstore.Kind
			tries int32
		}{
			400: {objstore.Unknown, 1 + maxReloads}, 401: {objstore.Permission, 1}, 403: {objstore.Permission, 1 + maxReloads},
			404: {objstore.NotExist, 1}, 405: {objstore.Unsupported, 1}, 412: {objstore.Stale, 1}, 413: {objstore.TooLarge, 1},
		} {
			var tries atomic.Int32
			b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				tries.Add(1)
				w.WriteHeader(status)
				fmt.Fprint(w, body)
			})
			_, err := tryGet(t.Context(), b, objstore.Ref{Key: "key"}, objstore.Range{})
			require.ErrorIs(t, err, want.kind, "%d %q", status, body)
			require.NotErrorIs(t, err, errDeadline, "%d %q", status, body)
			require.LessOrEqual(t, tries.Load(), want.tries, "%d %q", status, body)
		}
	}
	err := refusal(&http.Response{StatusCode: 400, Body: io.NopCloser(strings.NewReader("<Error><Code>EntityTooLarge</Code><Message>5 < 6"))})
	require.Equal(t, "EntityTooLarge", codeOf(err), "what comes before the mistake is read")
}

// TestTimesOfListings that are no RFC 3339 do not make a directory unreadable.
func TestTimesOfListings(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-01-02T03:04:05.006Z": at, "2026-01-02T03:04:05.006": at, "2026-01-02T04:04:05.006+01:00": at,
		"2026-01-02T03:04:05": at.Truncate(time.Second), "yesterday": {}, "": {},
	} {
		b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `<ListBucketResult><Contents><Key>k</Key><LastModified>%s</LastModified></Contents></ListBucketResult>`, text)
		})
		for e, err := range b.List(t.Context(), objstore.Query{}) {
			require.NoError(t, err, text)
			require.True(t, want.Equal(e.LastModified), "%q is %v", text, e.LastModified)
		}
	}
}
