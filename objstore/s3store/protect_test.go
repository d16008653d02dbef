package s3store

import (
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/storetest"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
)

// rawBucket makes a bucket as somebody else would, with no default encryption.
func rawBucket(t *testing.T, s *Store, name string) objstore.Bucket {
	t.Helper()
	_, err := s.client(name, "").CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String(name)})
	require.NoError(t, err)
	b, err := s.Open(t.Context(), name)
	require.NoError(t, err)
	return b
}

func TestHeaderIsSentWhereTheBucketHasNoDefault(t *testing.T) {
	srv := storetest.StartMinIO(t)
	s := testStore(t, srv.Env(), Config{PartSize: minPartSize})
	b := rawBucket(t, s, "plain-bucket")
	enc, err := b.Protection(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, objstore.ModeSSES3, enc.Mode)
	for name, data := range map[string][]byte{"small": random(10), "parts": random(6 << 20)} {
		o := put(t, b, name, data, objstore.CreateOptions{})
		h, err := b.Head(t.Context(), o.Ref(""))
		require.NoError(t, err)
		require.Equal(t, objstore.ModeSSES3, h.Encryption.Mode, name)
		c, err := b.Copy(t.Context(), name+"-copy", o.Ref(""), objstore.CopyOptions{})
		require.NoError(t, err)
		require.Equal(t, objstore.ModeSSES3, c.Encryption.Mode, name)
	}
	// What lay there in plaintext is encrypted when it is copied.
	lax := testStore(t, srv.Env(), Config{Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeNone}}}})
	lb, err := lax.Open(t.Context(), "plain-bucket")
	require.NoError(t, err)
	old := put(t, lb, "old", random(5), objstore.CreateOptions{})
	c, err := b.Copy(t.Context(), "old", old.Ref(""), objstore.CopyOptions{})
	require.NoError(t, err)
	require.Equal(t, objstore.ModeSSES3, c.Encryption.Mode)
}

func TestObjectThatLostItsProtectionIsRemoved(t *testing.T) {
	srv := storetest.StartMinIO(t)
	for _, versioned := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain bucket", true: "versioned"}[versioned], func(t *testing.T) {
			s := testStore(t, srv.Env(), Config{PartSize: minPartSize})
			name := map[bool]string{false: "lost-default", true: "lost-default-versioned"}[versioned]
			_, err := s.CreateBucket(t.Context(), name, objstore.CreateBucketOptions{})
			require.NoError(t, err)
			b, err := s.Open(t.Context(), name)
			require.NoError(t, err)
			raw := s.client(name, "")
			if versioned {
				_, err := raw.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: aws.String(name),
					VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
				require.NoError(t, err)
			}
			old := put(t, b, "small", random(9), objstore.CreateOptions{})
			_, err = raw.DeleteBucketEncryption(t.Context(), &s3.DeleteBucketEncryptionInput{Bucket: aws.String(name)})
			require.NoError(t, err)
			for key, data := range map[string][]byte{"small": random(10), "parts": random(6 << 20)} {
				_, err := tryPut(t.Context(), b, key, data, objstore.CreateOptions{})
				require.ErrorIs(t, err, objstore.Unencrypted, key)
			}
			if versioned {
				require.Equal(t, random(9), get(t, b, old.Ref(""), objstore.Range{}), "the older version is there again")
			} else {
				require.Empty(t, list(t, b, objstore.Query{}))
			}
		})
	}
}

func TestScratchObjectsLeaveNoVersions(t *testing.T) {
	srv, s, _ := emulated(t, "aws", Config{})
	raw := s.client("bucket", "")
	_, err := raw.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: aws.String("bucket"),
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	require.NoError(t, err)
	fresh := testStore(t, srv.Env(), Config{})
	b, err := fresh.Open(t.Context(), "bucket")
	require.NoError(t, err)
	_, err = b.Protection(t.Context(), "k")
	require.NoError(t, err)
	out, err := raw.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	require.Empty(t, out.Versions)
	require.Empty(t, out.DeleteMarkers)
}

func TestProbeOfACrashedMountDoesNotKeepABucket(t *testing.T) {
	_, s, b := emulated(t, "aws", Config{})
	put(t, b, objstore.ScratchPrefix+"0123", []byte("left behind"), objstore.CreateOptions{})
	put(t, b, "file", []byte("x"), objstore.CreateOptions{})
	require.ErrorIs(t, s.DeleteBucket(t.Context(), "bucket"), objstore.NotEmpty)
	require.NoError(t, b.Delete(t.Context(), objstore.Ref{Key: "file"})[0])
	require.NoError(t, s.DeleteBucket(t.Context(), "bucket"))
}

func TestReadOnlyWritesNothing(t *testing.T) {
	srv, _, b0 := emulated(t, "aws", Config{})
	put(t, b0, "key", []byte("data"), objstore.CreateOptions{})
	s := testStore(t, srv.Env(), Config{ReadOnly: true})
	b, err := s.Open(t.Context(), "bucket")
	require.NoError(t, err)
	srv.ResetRequests()
	enc, err := b.Protection(t.Context(), "key")
	require.NoError(t, err)
	require.Equal(t, objstore.ModeSSES3, enc.Mode)
	_, err = b.Create(t.Context(), "new", objstore.CreateOptions{})
	require.ErrorIs(t, err, objstore.Permission)
	_, err = b.Copy(t.Context(), "new", objstore.Ref{Key: "key"}, objstore.CopyOptions{})
	require.ErrorIs(t, err, objstore.Permission)
	require.ErrorIs(t, b.Delete(t.Context(), objstore.Ref{Key: "key"})[0], objstore.Permission)
	_, err = s.CreateBucket(t.Context(), "new-bucket", objstore.CreateBucketOptions{})
	require.ErrorIs(t, err, objstore.Permission)
	require.ErrorIs(t, s.DeleteBucket(t.Context(), "bucket"), objstore.Permission)
	require.Equal(t, []byte("data"), get(t, b, objstore.Ref{Key: "key"}, objstore.Range{}))
	for _, r := range srv.Requests() {
		require.Contains(t, []string{http.MethodGet, http.MethodHead}, r.Method)
	}
}

// A bucket policy that denies uploads without the header is no bucket that
// cannot be written to.
func TestPolicyThatDeniesPlainUploads(t *testing.T) {
	var mu sync.Mutex
	stored := map[string]string{} // key to what HEAD tells
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		key := strings.TrimPrefix(r.URL.Path, "/bucket/")
		switch r.Method {
		case http.MethodPut:
			if r.Header.Get(headerSSE) != "AES256" {
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`<Error><Code>AccessDenied</Code></Error>`))
				return
			}
			stored[key] = "AES256"
			w.Header().Set("ETag", `"tag"`)
		case http.MethodHead:
			sse, ok := stored[key]
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("ETag", `"tag"`)
			w.Header().Set(headerSSE, sse)
		case http.MethodDelete:
			delete(stored, key)
			w.WriteHeader(http.StatusNoContent)
		}
	})
	enc, err := b.Protection(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, objstore.ModeSSES3, enc.Mode)
	require.Empty(t, stored, "the scratch object was removed")
	put(t, b, "k", []byte("x"), objstore.CreateOptions{})
	require.Equal(t, "AES256", stored["k"])
	// This server honours neither CRC32 nor conditions.
	require.Equal(t, features{crc32: no, ifAbsent: no, ifMatch: no}, b.s.caps.get())
	_, err = tryPut(t.Context(), b, "k", []byte("y"), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
	require.ErrorIs(t, err, objstore.Exist, "HEAD takes the place of the condition")
	_, err = tryPut(t.Context(), b, "k", []byte("y"), objstore.CreateOptions{Cond: objstore.Condition{IfMatch: "other"}})
	require.ErrorIs(t, err, objstore.Stale)
}

func TestRegionIsFound(t *testing.T) {
	var signed []string
	b := against(t, Config{Region: "us-east-1"}, func(w http.ResponseWriter, r *http.Request) {
		_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=k/")
		region := strings.Split(scope, "/")[1]
		signed = append(signed, region)
		w.Header().Set("x-amz-bucket-region", "eu-central-1")
		if region != "eu-central-1" {
			w.WriteHeader(http.StatusMovedPermanently)
		}
	})
	opened, err := b.s.open(t.Context(), "bucket")
	require.NoError(t, err)
	require.Equal(t, "eu-central-1", opened.region)
	require.Equal(t, []string{"us-east-1", "eu-central-1"}, signed)
	_, err = b.s.Open(t.Context(), "bucket")
	require.NoError(t, err)
	require.Equal(t, []string{"us-east-1", "eu-central-1", "eu-central-1"}, signed)
}

func TestTLS(t *testing.T) {
	srv := storetest.StartMinIOTLS(t)
	env := []string{}
	for _, kv := range srv.Env() {
		if !strings.HasPrefix(kv, "AWS_CA_BUNDLE=") {
			env = append(env, kv)
		}
	}
	require.NoError(t, os.Unsetenv("AWS_CA_BUNDLE"))
	s := testStore(t, env, Config{})
	within(t, 5*time.Second, func() {
		_, err := s.Buckets(t.Context())
		require.ErrorContains(t, err, "x509")
	})
	for name, s := range map[string]*Store{
		"CA file": testStore(t, env, Config{CAFile: srv.CAFile, PartSize: minPartSize}),
		"bundle":  testStore(t, append(env, "AWS_CA_BUNDLE="+srv.CAFile), Config{PartSize: minPartSize}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.CreateBucket(t.Context(), "tls", objstore.CreateBucketOptions{})
			require.NoError(t, err)
			b, err := s.Open(t.Context(), "tls")
			require.NoError(t, err)
			for _, size := range []int{10, 6 << 20} {
				o := put(t, b, "key", random(size), objstore.CreateOptions{})
				require.Equal(t, random(size), get(t, b, o.Ref(""), objstore.Range{}))
			}
			require.NoError(t, b.Delete(t.Context(), objstore.Ref{Key: "key"})[0])
			require.NoError(t, s.DeleteBucket(t.Context(), "tls"))
		})
	}
}

func TestCopyByParts(t *testing.T) {
	data := random(11 << 20)
	check := func(t *testing.T, s *Store, b objstore.Bucket) {
		s.copyWhole = minPartSize
		opts := objstore.CreateOptions{
			Meta:    map[string]string{"name": "Grüße"},
			Headers: objstore.Headers{ContentType: "text/x", CacheControl: "no-store", Expires: "Wed, 21 Oct 2065 07:28:00 GMT", ContentLanguage: "de"},
		}
		o := put(t, b, "src", data, opts)
		_, err := s.client(b.Name(), "").PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String(b.Name()), Key: aws.String("src"),
			Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("a b"), Value: aws.String("c/d+e")}}}})
		require.NoError(t, err)
		c, err := b.Copy(t.Context(), "dst", o.Ref(""), objstore.CopyOptions{})
		require.NoError(t, err)
		require.Equal(t, opts.Meta, c.Meta)
		require.Equal(t, opts.Headers, c.Headers)
		require.Equal(t, o.Encryption.Mode, c.Encryption.Mode)
		require.Equal(t, data, get(t, b, c.Ref(""), objstore.Range{}))
		tags, err := s.client(b.Name(), "").GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: aws.String(b.Name()), Key: aws.String("dst")})
		require.NoError(t, err)
		require.Len(t, tags.TagSet, 1)
		require.Equal(t, "c/d+e", *tags.TagSet[0].Value)
		_, err = b.Copy(t.Context(), "dst", o.Ref(""), objstore.CopyOptions{Cond: objstore.Condition{IfAbsent: true}})
		require.ErrorIs(t, err, objstore.Exist)
		for range s.ListUploads(t.Context(), b.Name(), "") {
			t.Error("an upload was left behind")
		}
	}
	t.Run("emulator", func(t *testing.T) {
		_, s, b := emulated(t, "aws", Config{PartSize: minPartSize})
		check(t, s, b)
	})
	for _, srv := range realServers {
		t.Run(srv.name, func(t *testing.T) {
			s := testStore(t, srv.start(t).Env(), Config{PartSize: minPartSize, AllowUnencrypted: !srv.encrypts})
			_, err := s.CreateBucket(t.Context(), "parts", objstore.CreateBucketOptions{})
			require.NoError(t, err)
			b, err := s.Open(t.Context(), "parts")
			require.NoError(t, err)
			check(t, s, b)
		})
	}
}

func TestInspect(t *testing.T) {
	const yes, no = ResultYes, ResultNo
	for dialect, want := range map[string]struct{ encrypts, s3, kms, dsse, customer, copies Result }{
		"aws":       {yes, yes, yes, yes, no, yes}, // SSE-C is blocked, and http is no way for it
		"minio":     {yes, yes, yes, no, no, yes},
		"scality":   {yes, yes, yes, no, no, yes},
		"scality74": {yes, yes, no, no, no, yes},
		"liar":      {no, no, no, no, no, ""},
		"nosse":     {no, no, no, no, no, ""},
	} {
		t.Run(dialect, func(t *testing.T) {
			_, s, b := emulated(t, dialect, Config{})
			r, err := s.Inspect(t.Context(), "bucket")
			require.NoError(t, err)
			results := map[string]Result{}
			for _, c := range r.Checks {
				results[c.Name] = c.Result
				require.NotContains(t, c.Detail, os.Getenv("AWS_SECRET_ACCESS_KEY"))
			}
			require.Equal(t, want.encrypts, results["new objects are encrypted"])
			require.Equal(t, want.s3, results["honours SSE-S3"])
			require.Equal(t, want.kms, results["honours SSE-KMS"])
			require.Equal(t, want.dsse, results["honours DSSE-KMS"])
			require.Equal(t, want.customer, results["honours SSE-C"])
			require.Equal(t, want.copies, results["copies inside the store are encrypted"])
			require.Equal(t, ResultYes, results["credentials found"])
			require.Equal(t, ResultYes, results["list buckets"])
			require.Equal(t, strings.HasPrefix(dialect, "scality"), results["wrong CRC32 is refused"] == no)
			require.Empty(t, list(t, b, objstore.Query{}))
		})
	}
}

func TestInspectTriesCustomerKeysWithoutOne(t *testing.T) {
	srv := storetest.StartMinIOTLS(t)
	s := testStore(t, srv.Env(), Config{CAFile: srv.CAFile})
	_, err := s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{})
	require.NoError(t, err)
	r, err := s.Inspect(t.Context(), "bucket")
	require.NoError(t, err)
	require.Contains(t, r.Checks, Check{Name: "honours SSE-KMS", Result: ResultYes, Detail: "SSE-KMS under key arn:aws:kms:demo-key"})
	for _, c := range r.Checks {
		if c.Name == "honours SSE-C" {
			require.Equal(t, ResultYes, c.Result)
			require.Contains(t, c.Detail, "SSE-C under the key with MD5 ")
		}
	}
}
