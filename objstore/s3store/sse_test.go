package s3store

import (
	"crypto/md5"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/storetest"

	"github.com/stretchr/testify/require"
)

// sseServer keeps objects with the headers of their encryption and behaves as
// its fields say.
type sseServer struct {
	ignoresKeys bool   // SSE-C is answered 200 and not done
	leaks       bool   // SSE-C shows in HEAD, and GET needs no key
	blocks      bool   // SSE-C is refused with 403
	rgw         bool   // a wrong key is 400, and one for a plain object is ignored
	kmsShown    string // the key id that HEAD shows
	kmsCode     string // the refusal of SSE-KMS, with kmsStatus
	kmsStatus   int

	mu      sync.Mutex
	objects map[string]sseObject
	puts    []http.Header
}

type sseObject struct {
	body              []byte
	sse, key, keyName string
}

const customerMD5 = "X-Amz-Server-Side-Encryption-Customer-Key-Md5"

func (s *sseServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects == nil {
		s.objects = map[string]sseObject{}
	}
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			io.WriteString(w, "<Error><Code>"+code+"</Code><Message>text of the server</Message></Error>")
		}
	}
	key := r.Header.Get(customerMD5)
	switch r.Method {
	case http.MethodPut:
		body, _ := io.ReadAll(r.Body)
		s.puts = append(s.puts, r.Header.Clone())
		o := sseObject{body: body, sse: r.Header.Get(headerSSE), key: key}
		switch {
		case s.blocks && key != "":
			refuse(403, "AccessDenied")
			return
		case s.kmsCode != "" && strings.HasPrefix(o.sse, "aws:kms"):
			refuse(s.kmsStatus, s.kmsCode)
			return
		case s.ignoresKeys:
			o.key = ""
		}
		if strings.HasPrefix(o.sse, "aws:kms") {
			o.keyName = s.kmsShown
		}
		s.objects[r.URL.Path] = o
		sum := md5.Sum(body)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	case http.MethodDelete:
		delete(s.objects, r.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	default:
		o, ok := s.objects[r.URL.Path]
		switch {
		case !ok:
			refuse(404, "NoSuchKey")
			return
		case o.key != "" && key == "" && !s.leaks:
			refuse(400, "InvalidRequest")
			return
		case o.key != "" && key != o.key && !s.leaks:
			if s.rgw {
				refuse(400, "InvalidArgument")
			} else {
				refuse(403, "AccessDenied")
			}
			return
		case o.key == "" && key != "" && !s.rgw && !s.ignoresKeys:
			refuse(400, "InvalidRequest")
			return
		}
		sum := md5.Sum(o.body)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		if o.sse != "" {
			w.Header().Set(headerSSE, o.sse)
		}
		if o.keyName != "" {
			w.Header().Set("x-amz-server-side-encryption-aws-kms-key-id", o.keyName)
		}
		if o.key != "" {
			w.Header().Set("x-amz-server-side-encryption-customer-algorithm", "AES256")
			w.Header().Set(customerMD5, o.key)
		}
		w.Write(o.body)
	}
}

// sseBucket opens a bucket whose policy is enc.
func sseBucket(t *testing.T, srv *sseServer, enc objstore.Encryption, keys ...CustomerKey) *bucket {
	t.Helper()
	return against(t, Config{Rules: []Rule{{Pattern: "*", Encryption: enc}}, CustomerKeys: keys}, srv.ServeHTTP)
}

func TestProofOfCustomerKeys(t *testing.T) {
	for name, c := range map[string]struct {
		srv  *sseServer
		kind objstore.Kind
		text string
	}{
		"honest":         {&sseServer{}, 0, ""},
		"wrong key 400":  {&sseServer{rgw: true}, 0, ""},
		"ignores":        {&sseServer{ignoresKeys: true}, objstore.Unencrypted, `came out as "none"`},
		"shows it only":  {&sseServer{leaks: true}, objstore.Unencrypted, `came out as "none"`},
		"blocked by AWS": {&sseServer{blocks: true}, objstore.Permission, "BlockedEncryptionTypes"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := customerKey(t, 'a'), customerKey(t, 'b')
			bk := sseBucket(t, c.srv, objstore.Encryption{Mode: objstore.ModeSSEC}, a, b)
			o, err := tryPut(t.Context(), bk, "key", []byte("data"), objstore.CreateOptions{})
			if c.kind != 0 {
				require.ErrorIs(t, err, c.kind)
				require.ErrorContains(t, err, c.text)
				require.Empty(t, c.srv.objects, "nothing stays")
				return
			}
			require.NoError(t, err)
			require.Equal(t, a.MD5(), o.Encryption.CustomerKeyMD5)
			put(t, bk, "older", []byte("older"), objstore.CreateOptions{Encryption: objstore.Encryption{Mode: objstore.ModeSSEC, CustomerKeyMD5: b.MD5()}})
			put(t, sseBucket(t, c.srv, objstore.Encryption{Mode: objstore.ModeNone}), "plain", []byte("plain"), objstore.CreateOptions{})
			fresh := sseBucket(t, c.srv, objstore.Encryption{}, a, b)
			for _, bk := range []*bucket{bk, fresh} {
				for range 2 {
					require.Equal(t, "data", string(get(t, bk, objstore.Ref{Key: "key"}, objstore.Range{})))
					require.Equal(t, "older", string(get(t, bk, objstore.Ref{Key: "older"}, objstore.Range{})))
					require.Equal(t, "plain", string(get(t, bk, objstore.Ref{Key: "plain"}, objstore.Range{})))
				}
			}
			only := sseBucket(t, c.srv, objstore.Encryption{}, b)
			_, err = only.Head(t.Context(), objstore.Ref{Key: "key"})
			require.ErrorIs(t, err, objstore.KeyUnavailable)
			_, _, err = only.Get(t.Context(), objstore.Ref{Key: "older"}, objstore.GetOptions{CustomerKeyMD5: "unknown"})
			require.ErrorIs(t, err, objstore.KeyUnavailable)
		})
	}
}

func TestProofOfKMSKeys(t *testing.T) {
	const arn = "arn:aws:kms:eu-west-1:123456789012:key/0aa"
	for name, c := range map[string]struct {
		srv  *sseServer
		key  string
		kind objstore.Kind
	}{
		"by id":              {&sseServer{kmsShown: arn}, "0aa", 0},
		"by alias":           {&sseServer{kmsShown: arn}, "alias/mine", 0},
		"another key":        {&sseServer{kmsShown: arn}, "0ab", objstore.Unencrypted},
		"disabled":           {&sseServer{kmsCode: "KMS.DisabledException", kmsStatus: 400}, "0aa", objstore.KeyUnavailable},
		"unknown to MinIO":   {&sseServer{kmsCode: "kms:KeyNotFound", kmsStatus: 404}, "0aa", objstore.KeyUnavailable},
		"unknown to RGW":     {&sseServer{kmsCode: "InvalidAccessKeyId", kmsStatus: 403}, "0aa", objstore.KeyUnavailable},
		"denied":             {&sseServer{kmsCode: "AccessDenied", kmsStatus: 403}, "0aa", objstore.Permission},
		"mode not supported": {&sseServer{kmsCode: "InvalidArgument", kmsStatus: 400}, "0aa", objstore.Unencrypted},
	} {
		t.Run(name, func(t *testing.T) {
			bk := sseBucket(t, c.srv, objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: c.key})
			o, err := tryPut(t.Context(), bk, "key", []byte("data"), objstore.CreateOptions{})
			if c.kind != 0 {
				require.ErrorIs(t, err, c.kind)
				require.Empty(t, c.srv.objects)
				if c.srv.kmsCode != "" {
					require.ErrorContains(t, err, "text of the server")
				}
				return
			}
			require.NoError(t, err)
			require.Equal(t, arn, o.Encryption.KMSKeyID)

			// The key that the store uses changes under the mount: the close
			// fails, and what is encrypted all the same is not removed.
			c.srv.kmsShown = "arn:aws:kms:eu-west-1:123456789012:key/0ff"
			_, err = tryPut(t.Context(), bk, "later", []byte("data"), objstore.CreateOptions{})
			require.ErrorIs(t, err, objstore.Unencrypted)
			require.Contains(t, c.srv.objects, "/bucket/later")
		})
	}
}

func TestKMSContextGoesWithTheModesThatHaveOne(t *testing.T) {
	srv := &sseServer{}
	bk := against(t, Config{KMSContext: map[string]string{"who": "all"}, Rules: []Rule{
		{Pattern: "*/own/", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, BucketKey: true}, KMSContext: map[string]string{"b": "2", "a": "1"}},
		{Pattern: "*/kms/", Encryption: objstore.Encryption{Mode: objstore.ModeDSSEKMS}},
		{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSES3}},
	}}, srv.ServeHTTP)
	for key, want := range map[string]string{"own/x": "eyJhIjoiMSIsImIiOiIyIn0=", "kms/x": "eyJ3aG8iOiJhbGwifQ==", "x": ""} {
		put(t, bk, key, []byte("data"), objstore.CreateOptions{})
		last := srv.puts[len(srv.puts)-1]
		require.Equal(t, want, last.Get("X-Amz-Server-Side-Encryption-Context"), key)
		require.Equal(t, key == "own/x", last.Get("X-Amz-Server-Side-Encryption-Bucket-Key-Enabled") == "true", key)
	}
}

func TestSamePolicy(t *testing.T) {
	bk := against(t, Config{Rules: []Rule{
		{Pattern: "*/kms/", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS}},
		{Pattern: "*/more/", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "k"}},
	}}, nil)
	require.True(t, bk.SamePolicy("a", "b/c"))
	require.True(t, bk.SamePolicy("kms/a", "more/a"), "the mode counts and not the key")
	require.False(t, bk.SamePolicy("a", "kms/a"))
	require.False(t, bk.SamePolicy("kms/", "kms"))
}

func TestHeadersByVerb(t *testing.T) {
	a, b := customerKey(t, 'a'), customerKey(t, 'b')
	ring := newKeyring([]CustomerKey{a, b})
	e := ask{Encryption: objstore.Encryption{Mode: objstore.ModeSSEC, CustomerKeyMD5: a.MD5()}}
	for verb, want := range map[string]int{"PutObject": 3, "CreateMultipartUpload": 3, "UploadPart": 3, "CompleteMultipartUpload": 3,
		"UploadPartCopy": 6, "CopyObject": 6, "GetObject": 3, "HeadObject": 3, "DeleteObject": 0, "ListObjectsV2": 0, "AbortMultipartUpload": 0} {
		h, err := ring.sseHeaders(verb, e, b.MD5())
		require.NoError(t, err)
		require.Len(t, h, want, verb)
		require.NotContains(t, h, headerSSE, verb)
	}
	kms := ask{Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "k"}}
	for verb, want := range map[string]int{"PutObject": 2, "CreateMultipartUpload": 2, "CopyObject": 5, "UploadPart": 0, "UploadPartCopy": 3, "CompleteMultipartUpload": 0, "GetObject": 0, "HeadObject": 0} {
		h, err := ring.sseHeaders(verb, kms, b.MD5())
		require.NoError(t, err)
		require.Len(t, h, want, verb)
	}
	kms.everywhere = true // what is chosen once is repeated
	for verb, want := range map[string]int{"CreateMultipartUpload": 2, "UploadPart": 2, "UploadPartCopy": 5, "CompleteMultipartUpload": 2, "GetObject": 0, "HeadObject": 0} {
		h, err := ring.sseHeaders(verb, kms, b.MD5())
		require.NoError(t, err)
		require.Len(t, h, want, verb)
	}
	_, err := ring.sseHeaders("CopyObject", kms, "unknown")
	require.ErrorIs(t, err, objstore.KeyUnavailable)
}

func TestLostRepliesWithCustomerKeys(t *testing.T) {
	srv := &sseServer{}
	lose := false
	bk := against(t, Config{Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEC}}}, CustomerKeys: []CustomerKey{customerKey(t, 'a')}},
		func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && lose {
				lose = false
				srv.ServeHTTP(discard{http.Header{}}, r)
				panic(http.ErrAbortHandler)
			}
			if r.Method == http.MethodPut && r.Header.Get("If-None-Match") != "" && srv.objects[r.URL.Path].body != nil {
				w.WriteHeader(http.StatusPreconditionFailed)
				return
			}
			srv.ServeHTTP(w, r)
		})
	_, err := bk.Protection(t.Context(), "")
	require.NoError(t, err)
	lose = true
	o, err := tryPut(t.Context(), bk, "key", []byte("data"), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
	require.NoError(t, err)
	require.Equal(t, objstore.ModeSSEC, o.Encryption.Mode)
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func TestBucketDefaultIsThePolicys(t *testing.T) {
	s := testStore(t, storetest.StartMinIO(t).Env(), Config{Rules: []Rule{
		{Pattern: "kms-*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "demo-key"}},
		{Pattern: "bad-*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "no-such-key"}},
		{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSES3}},
	}})
	for name, want := range map[string]objstore.Mode{"kms-bucket": objstore.ModeSSEKMS, "other": objstore.ModeSSES3} {
		enc, err := s.CreateBucket(t.Context(), name, objstore.CreateBucketOptions{})
		require.NoError(t, err)
		require.Equal(t, want, enc.Mode)
		b, err := s.open(t.Context(), name)
		require.NoError(t, err)
		enc, err = b.configured(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, enc.Mode)
	}
	_, err := s.CreateBucket(t.Context(), "bad-bucket", objstore.CreateBucketOptions{})
	require.ErrorIs(t, err, objstore.KeyUnavailable)
	_, err = s.Open(t.Context(), "bad-bucket")
	require.ErrorIs(t, err, objstore.NotExist)
}

// A HEAD whose token has expired is answered with a bare 400, as is one that
// wants a key: both must be told apart, and the search begun again.
func TestExpiredCredentialsAreNoMissingKey(t *testing.T) {
	for name, clock := range map[string]time.Duration{"plain": 0, "under a key": 0, "plain, clock off": time.Hour, "under a key, clock off": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			key, _, _ := strings.Cut(name, ",")
			srv := &sseServer{}
			valid := "/k/"
			a := customerKey(t, 'a')
			bk := against(t, Config{Rules: []Rule{{Pattern: "*/under a key", Encryption: objstore.Encryption{Mode: objstore.ModeSSEC}},
				{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeNone}}}, CustomerKeys: []CustomerKey{a, customerKey(t, 'b')}},
				func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Date", time.Now().Add(clock).UTC().Format(http.TimeFormat))
					if !strings.Contains(r.Header.Get("Authorization"), "Credential="+valid[1:]) {
						w.WriteHeader(http.StatusBadRequest)
						if r.Method != http.MethodHead {
							io.WriteString(w, "<Error><Code>ExpiredToken</Code></Error>")
						}
						return
					}
					srv.ServeHTTP(w, r)
				})
			put(t, bk, key, []byte("data"), objstore.CreateOptions{})
			valid = "/renewed/"
			t.Setenv("AWS_ACCESS_KEY_ID", "renewed")
			o, err := bk.Head(t.Context(), objstore.Ref{Key: key})
			require.NoError(t, err)
			require.Equal(t, key == "under a key", o.Encryption.CustomerKeyMD5 == a.MD5())
		})
	}
}

// Looking for the key of an object makes no request but those with the keys.
func TestSearchForAKeyIsShort(t *testing.T) {
	srv := &sseServer{}
	heads := 0
	count := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			heads++
		}
		srv.ServeHTTP(w, r)
	}
	a, b := customerKey(t, 'a'), customerKey(t, 'b')
	put(t, sseBucket(t, srv, objstore.Encryption{Mode: objstore.ModeSSEC}, b), "older", []byte("x"), objstore.CreateOptions{})
	bk := against(t, Config{Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEC}}}, CustomerKeys: []CustomerKey{a, b}}, count)
	for i, want := range []int{3, 1, 1} { // the first key, none, the second; then remembered
		heads = 0
		_, err := bk.Head(t.Context(), objstore.Ref{Key: "older"})
		require.NoError(t, err)
		require.Equal(t, want, heads, "HEAD %d", i+1)
	}
}
