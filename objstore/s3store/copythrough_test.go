package s3store

import (
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/emulator"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"
)

// Stores are known that store a copy of an encrypted object in plaintext, and
// stores that refuse to copy one: no user's object may be what shows it.
func TestCopyWhereTheStoreMakesNoEncryptedOnes(t *testing.T) {
	for name, fault := range map[string]emulator.Fault{
		"plaintext": {Verb: "CopyObject", DropSSE: true},
		"501":       {Verb: "CopyObject", Code: "NotImplemented"},
		"400":       {Verb: "CopyObject", Code: "InvalidRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			srv, s, b := emulated(t, "aws", Config{PartSize: minPartSize})
			srv.Inject(fault)
			raw := s.client("bucket", "")
			headers := objstore.Headers{ContentType: "text/x", CacheControl: "no-cache", Expires: "Thu, 01 Dec 1994 16:00:00 GMT"}
			for key, data := range map[string][]byte{"empty": {}, "small": random(1000), "parts": random(2*minPartSize + 3)} {
				put(t, b, key, data, objstore.CreateOptions{Meta: map[string]string{"a": "b"}, Headers: headers, StorageClass: "STANDARD_IA"})
				_, err := raw.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String(key),
					Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("t"), Value: aws.String("v")}}}})
				require.NoError(t, err)
				look := func(key, meta string) {
					o, err := b.Head(t.Context(), objstore.Ref{Key: key})
					require.NoError(t, err)
					require.Equal(t, objstore.ModeSSES3, o.Encryption.Mode, key)
					require.Equal(t, map[string]string{"a": meta}, o.Meta, key)
					require.Equal(t, headers, o.Headers, key)
					require.Equal(t, "STANDARD_IA", o.StorageClass, key)
					require.Equal(t, data, get(t, b, o.Ref(""), objstore.Range{}), key)
					tags, err := raw.GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: aws.String("bucket"), Key: aws.String(key)})
					require.NoError(t, err)
					require.Len(t, tags.TagSet, 1, key)
				}
				_, err = b.Copy(t.Context(), key+"-copy", objstore.Ref{Key: key}, objstore.CopyOptions{})
				require.NoError(t, err)
				look(key+"-copy", "b")
				_, err = b.Copy(t.Context(), key, objstore.Ref{Key: key}, objstore.CopyOptions{Meta: map[string]string{"a": "c"}})
				require.NoError(t, err)
				look(key, "c")
				_, err = b.Copy(t.Context(), key+"-copy", objstore.Ref{Key: key}, objstore.CopyOptions{Cond: objstore.Condition{IfAbsent: true}})
				require.ErrorIs(t, err, objstore.Exist)
			}
			require.Equal(t, 1, count(srv, "CopyObject"), "one scratch object, and no object of the user")
			require.Len(t, list(t, b, objstore.Query{}), 6)
			out, err := raw.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
			require.NoError(t, err)
			require.Len(t, out.Contents, 6, "no scratch object is left")
		})
	}
}

// What may pass is no answer: it is asked again.
func TestCopyProbeThatFailedIsRepeated(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{ProbeTimeout: time.Second})
	put(t, b, "key", random(10), objstore.CreateOptions{})
	srv.Inject(emulator.Fault{Verb: "CopyObject", Code: "SlowDown"})
	_, err := b.Copy(t.Context(), "copy", objstore.Ref{Key: "key"}, objstore.CopyOptions{})
	require.ErrorIs(t, err, objstore.Throttled)
	srv.ClearFaults()
	srv.ResetRequests()
	_, err = b.Copy(t.Context(), "copy", objstore.Ref{Key: "key"}, objstore.CopyOptions{})
	require.NoError(t, err)
	require.Equal(t, 2, count(srv, "CopyObject"))
	require.Equal(t, 0, count(srv, "GetObject"), "the store copies")
}

// A copy through this machine of an object onto itself must not bring back
// what somebody has replaced meanwhile.
func TestCopyThroughDoesNotUndo(t *testing.T) {
	srv, s, _ := emulated(t, "aws", Config{})
	// With the patience of every day: the store is slow here.
	slow, err := newStore(t.Context(), Config{}, defaultPatience)
	require.NoError(t, err)
	defer slow.Close()
	b, err := slow.Open(t.Context(), "bucket")
	require.NoError(t, err)
	srv.Inject(emulator.Fault{Verb: "CopyObject", KeyPattern: objstore.ScratchPrefix + "*", Code: "NotImplemented"})
	put(t, b, "key", []byte("old"), objstore.CreateOptions{})
	put(t, b, "seed", []byte("new"), objstore.CreateOptions{})
	_, err = b.Copy(t.Context(), "other", objstore.Ref{Key: "key"}, objstore.CopyOptions{}) // the probe is over
	require.NoError(t, err)
	srv.ResetRequests()
	srv.Inject(emulator.Fault{Verb: "PutObject", Delay: 4 * time.Second})
	done := make(chan error)
	go func() {
		_, err := b.Copy(t.Context(), "key", objstore.Ref{Key: "key"}, objstore.CopyOptions{Meta: map[string]string{"a": "b"}})
		done <- err
	}()
	require.Eventually(t, func() bool { return count(srv, "GetObject") == 1 }, 5*time.Second, time.Millisecond)
	time.Sleep(500 * time.Millisecond) // the PUT is on its way
	_, err = s.client("bucket", "").CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("key"), CopySource: aws.String("bucket/seed")})
	require.NoError(t, err)
	require.ErrorIs(t, <-done, objstore.Stale)
	require.Equal(t, "new", string(get(t, b, objstore.Ref{Key: "key"}, objstore.Range{})))
	refused := 0
	for _, r := range srv.Requests() {
		if r.Verb == "PutObject" && r.Status == 412 {
			refused++
		}
	}
	require.Equal(t, 1, refused, "it was the store that refused it")
}

// Where nobody else has the bytes, an object that lost its protection stays,
// and the error says so.
func TestCopyThroughRemovesNoOnlyCopy(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
	srv.Inject(emulator.Fault{Verb: "CopyObject", Code: "NotImplemented"})
	for key, size := range map[string]int{"small": 10, "parts": minPartSize + 1} {
		put(t, b, key, random(size), objstore.CreateOptions{})
		_, err := b.Copy(t.Context(), key+"-copy", objstore.Ref{Key: key}, objstore.CopyOptions{})
		require.NoError(t, err)
		srv.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: key, DropSSE: true}, emulator.Fault{Verb: "CreateMultipartUpload", KeyPattern: key, DropSSE: true})
		_, err = b.Copy(t.Context(), key, objstore.Ref{Key: key}, objstore.CopyOptions{Meta: map[string]string{"a": "b"}})
		require.ErrorIs(t, err, objstore.Unencrypted)
		require.ErrorContains(t, err, "the object is kept")
		require.Equal(t, random(size), get(t, b, objstore.Ref{Key: key}, objstore.Range{}))
	}
}

// To allow plaintext for new objects does not allow a copy to lay an encrypted
// one bare.
func TestEncryptedSourceStaysSo(t *testing.T) {
	srv, s, _ := emulated(t, "aws", Config{AllowUnencrypted: true})
	_, err := srv.CreateKMSKey("alias/key")
	require.NoError(t, err)
	b, err := s.Open(t.Context(), "bucket")
	require.NoError(t, err)
	put(t, b, "key", []byte("data"), objstore.CreateOptions{Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "alias/key"}})
	srv.Inject(emulator.Fault{Verb: "CopyObject", DropSSE: true})
	o, err := b.Copy(t.Context(), "key", objstore.Ref{Key: "key"}, objstore.CopyOptions{Meta: map[string]string{"a": "b"}})
	require.NoError(t, err)
	require.Equal(t, objstore.ModeSSEKMS, o.Encryption.Mode)
	require.Equal(t, "data", string(get(t, b, objstore.Ref{Key: "key"}, objstore.Range{})))
}

// A refused copy has made nothing that would have to be removed.
func TestRefusedCopyProbeLeavesNoMarker(t *testing.T) {
	srv, s, b := emulated(t, "aws", Config{})
	raw := s.client("bucket", "")
	_, err := raw.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: aws.String("bucket"),
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
	require.NoError(t, err)
	put(t, b, "key", []byte("data"), objstore.CreateOptions{})
	srv.Inject(emulator.Fault{Verb: "CopyObject", Code: "NotImplemented"})
	_, err = b.Copy(t.Context(), "copy", objstore.Ref{Key: "key"}, objstore.CopyOptions{})
	require.NoError(t, err)
	out, err := raw.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: aws.String("bucket")})
	require.NoError(t, err)
	require.Len(t, out.Versions, 2)
	require.Empty(t, out.DeleteMarkers)
}
