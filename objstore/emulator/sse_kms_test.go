package emulator_test

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func kmsPut(key string, body []byte, mode types.ServerSideEncryption, keyID string) *s3.PutObjectInput {
	in := &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: bytes.NewReader(body), ServerSideEncryption: mode}
	if keyID != "" {
		in.SSEKMSKeyId = &keyID
	}
	return in
}

func headOf(t testing.TB, c *s3.Client, key string) *s3.HeadObjectOutput {
	t.Helper()
	out, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: &key})
	require.NoError(t, err)
	return out
}

func TestSSEKMS(t *testing.T) {
	for _, mode := range []types.ServerSideEncryption{"aws:kms", "aws:kms:dsse"} {
		t.Run(string(mode), func(t *testing.T) {
			dir := t.TempDir()
			s, c := bucketOn(t, emulator.Config{Dir: dir})
			arn, err := s.CreateKMSKey("mine")
			require.NoError(t, err)
			body := append(noise(7, 200_000), []byte("under a key that can be taken away")...)
			id := arn[strings.LastIndex(arn, "/")+1:]
			for _, name := range []string{arn, id, "alias/mine", "arn:aws:kms:us-east-1:111122223333:alias/mine"} {
				out, err := c.PutObject(t.Context(), kmsPut("k", body, mode, name))
				require.NoError(t, err, name)
				require.Equal(t, mode, out.ServerSideEncryption)
				require.Equal(t, arn, *out.SSEKMSKeyId)
				sum := md5.Sum(body)
				require.NotContains(t, *out.ETag, hex.EncodeToString(sum[:]))
				head := headOf(t, c, "k")
				require.Equal(t, mode, head.ServerSideEncryption)
				require.Equal(t, arn, *head.SSEKMSKeyId)
				require.Equal(t, *out.ETag, *head.ETag)
				require.Equal(t, body, get(t, c, "k"))
			}
			r, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k"), Range: aws.String("bytes=65530-131100")})
			require.NoError(t, err)
			got, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			require.Equal(t, body[65530:131101], got)

			// Without a key's name it is the key that S3 makes for itself.
			out, err := c.PutObject(t.Context(), kmsPut("own", body, mode, ""))
			require.NoError(t, err)
			require.NotEqual(t, arn, *out.SSEKMSKeyId)
			require.Equal(t, *out.SSEKMSKeyId, *headOf(t, c, "own").SSEKMSKeyId)

			// Parts and copies.
			big := noise(8, partSize+100)
			up, parts := multipart(t, c, "big", big, s3.CreateMultipartUploadInput{ServerSideEncryption: mode, SSEKMSKeyId: &arn})
			done, err := complete(c, t, "big", up, parts, nil)
			require.NoError(t, err)
			require.Equal(t, arn, *done.SSEKMSKeyId)
			require.Equal(t, big, get(t, c, "big"))
			_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("plainer"), CopySource: aws.String("bucket/big")})
			require.NoError(t, err)
			require.EqualValues(t, "AES256", headOf(t, c, "plainer").ServerSideEncryption)
			require.Equal(t, big, get(t, c, "plainer"))
			copied, err := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("plainer"), CopySource: aws.String("bucket/plainer"), ServerSideEncryption: mode, SSEKMSKeyId: &arn})
			require.NoError(t, err, "re-encryption in place")
			require.Equal(t, arn, *copied.SSEKMSKeyId)
			require.Equal(t, big, get(t, c, "plainer"))
			require.Empty(t, found(t, dir, body[len(body)-30:]))
			require.Empty(t, found(t, dir, big[50:100]))

			// A rotation leaves all of it readable, over a restart too.
			require.NoError(t, s.RotateKMSKey(arn))
			require.NoError(t, s.Close())
			again := start(t, emulator.Config{Dir: dir})
			require.Equal(t, body, get(t, sdk(t, again), "k"))
		})
	}
}

// TestKMSRefusals: what the key service refuses reaches S3's clients as S3
// words it, for writing and reading, and HEAD needs no key.
func TestKMSRefusals(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	_, err = c.PutObject(t.Context(), kmsPut("k", []byte("x"), "aws:kms", arn))
	require.NoError(t, err)
	refused := func(status int, code string) {
		t.Helper()
		_, err := tryGet(t.Context(), c, "k")
		requireFailure(t, err, status, code)
		_, err = c.PutObject(t.Context(), kmsPut("k2", []byte("x"), "aws:kms", arn))
		requireFailure(t, err, status, code)
		_, err = c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: aws.String("bucket"), Key: aws.String("k3"), CopySource: aws.String("bucket/k")})
		requireFailure(t, err, status, code)
		_, err = c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: aws.String("m"), ServerSideEncryption: "aws:kms", SSEKMSKeyId: &arn})
		requireFailure(t, err, status, code)
		require.Equal(t, arn, *headOf(t, c, "k").SSEKMSKeyId)
	}
	require.NoError(t, s.DisableKMSKey(arn))
	refused(400, "KMS.DisabledException")
	require.NoError(t, s.EnableKMSKey(arn))
	require.NoError(t, s.DenyKMS(arn, true))
	refused(403, "AccessDenied")
	require.NoError(t, s.DenyKMS(arn, false))
	for code, want := range map[string]string{"ThrottlingException": "ThrottlingException", "DisabledException": "KMS.DisabledException", "NotFoundException": "KMS.NotFoundException"} {
		s.Inject(emulator.Fault{Verb: "kms:Decrypt", Code: code}, emulator.Fault{Verb: "kms:GenerateDataKey", Code: code})
		refused(400, want)
		s.ClearFaults()
	}
	require.NoError(t, s.ScheduleKMSKeyDeletion(arn))
	refused(400, "KMS.KMSInvalidStateException")
	_, err = c.PutObject(t.Context(), kmsPut("k", nil, "aws:kms", "alias/nobody"))
	requireFailure(t, err, 400, "KMS.NotFoundException")
}

func TestKMSContextAndBucketKey(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{})
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	in := kmsPut("k", []byte("x"), "aws:kms", arn)
	in.SSEKMSEncryptionContext = aws.String(base64.StdEncoding.EncodeToString([]byte(`{"project":"tides"}`)))
	in.BucketKeyEnabled = aws.Bool(true)
	out, err := c.PutObject(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, *in.SSEKMSEncryptionContext, *out.SSEKMSEncryptionContext)
	require.True(t, *out.BucketKeyEnabled)
	require.True(t, *headOf(t, c, "k").BucketKeyEnabled)
	require.Equal(t, "x", string(get(t, c, "k")))
	in = kmsPut("k", []byte("x"), "aws:kms", arn)
	in.SSEKMSEncryptionContext = aws.String("{}")
	_, err = c.PutObject(t.Context(), in)
	requireFailure(t, err, 400, "InvalidArgument")
	in = kmsPut("k", nil, "", arn)
	_, err = c.PutObject(t.Context(), in)
	requireFailure(t, err, 400, "InvalidArgument")
	_, err = c.PutObject(t.Context(), kmsPut("k", nil, "AES256", arn))
	requireFailure(t, err, 400, "InvalidArgument")
}

func TestBucketDefaultKMS(t *testing.T) {
	s, c := bucketOn(t, emulator.Config{AllowSSECOverHTTP: true})
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	for _, mode := range []types.ServerSideEncryption{"aws:kms", "aws:kms:dsse"} {
		_, err = c.PutBucketEncryption(t.Context(), &s3.PutBucketEncryptionInput{Bucket: aws.String("bucket"), ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
			ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: mode, KMSMasterKeyID: &arn},
			BucketKeyEnabled:                   aws.Bool(true),
			BlockedEncryptionTypes:             &types.BlockedEncryptionTypes{EncryptionType: []types.EncryptionType{types.EncryptionTypeSseC}},
		}}}})
		require.NoError(t, err)
		rule, err := c.GetBucketEncryption(t.Context(), &s3.GetBucketEncryptionInput{Bucket: aws.String("bucket")})
		require.NoError(t, err)
		got := rule.ServerSideEncryptionConfiguration.Rules[0]
		require.Equal(t, mode, got.ApplyServerSideEncryptionByDefault.SSEAlgorithm)
		require.Equal(t, arn, *got.ApplyServerSideEncryptionByDefault.KMSMasterKeyID)
		require.True(t, *got.BucketKeyEnabled)
		require.Equal(t, []types.EncryptionType{types.EncryptionTypeSseC}, got.BlockedEncryptionTypes.EncryptionType)

		out := put(t, c, "k", []byte("x"))
		require.Equal(t, mode, out.ServerSideEncryption)
		require.Equal(t, arn, *out.SSEKMSKeyId)
		require.Equal(t, mode == "aws:kms", aws.ToBool(out.BucketKeyEnabled))
		require.Equal(t, "x", string(get(t, c, "k")))
		plainer, err := c.PutObject(t.Context(), kmsPut("k", []byte("x"), "AES256", ""))
		require.NoError(t, err)
		require.Nil(t, plainer.SSEKMSKeyId)
		_, err = c.PutObject(t.Context(), ssec(1).put("k", nil))
		requireFailure(t, err, 403, "AccessDenied")
	}
}
