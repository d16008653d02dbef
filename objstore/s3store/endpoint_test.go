package s3store

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
)

// TestRequestsGoWhereTheSDKSendsThem compares addresses for keys and for
// endpoints that are easily got wrong.
func TestRequestsGoWhereTheSDKSendsThem(t *testing.T) {
	var seen []string
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Host+" "+r.RequestURI)
		w.WriteHeader(http.StatusNotFound)
	})
	for _, key := range []string{"plain", "dir/a b", "a+b&c=d?e#f", "100%", "%41", "~-._!'()*,:;@[]$", "grüße/日本", "new\nline\x7f", "a//b", "/lead", "./x", "up/../x", "..", "trailing/"} {
		seen = nil
		_, err := b.Head(t.Context(), objstore.Ref{Key: key, VersionID: "v+1 /"})
		require.ErrorIs(t, err, objstore.NotExist)
		_, err = b.client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String(key), VersionId: aws.String("v+1 /")})
		require.Error(t, err)
		require.Len(t, seen, 2)
		require.Equal(t, seen[1], seen[0])
	}
	for name, env := range map[string][]string{
		"AWS":            {"AWS_REGION=eu-west-1"},
		"China":          {"AWS_REGION=cn-north-1"},
		"dual stack":     {"AWS_REGION=eu-west-1", "AWS_USE_DUALSTACK_ENDPOINT=true"},
		"pseudo region":  {"AWS_REGION=aws-global"},
		"FIPS region":    {"AWS_REGION=fips-us-gov-west-1"},
		"FIPS region 2":  {"AWS_REGION=us-east-1-fips"},
		"FIPS":           {"AWS_REGION=us-east-2", "AWS_USE_FIPS_ENDPOINT=true"},
		"other server":   {"AWS_REGION=us-east-1", "AWS_ENDPOINT_URL=https://s3.example.org"},
		"below a path":   {"AWS_REGION=us-east-1", "AWS_ENDPOINT_URL=https://example.org/s3/"},
		"a default port": {"AWS_REGION=us-east-1", "AWS_ENDPOINT_URL=https://s3.example.org:443"},
		"another port":   {"AWS_REGION=us-east-1", "AWS_ENDPOINT_URL=https://s3.example.org:9000"},
	} {
		for _, style := range []string{"auto", "on", "off"} {
			for _, bucket := range []string{"bucket", "dotted.bucket"} {
				t.Run(name+" "+style+" "+bucket, func(t *testing.T) {
					s := testStore(t, append([]string{"AWS_ENDPOINT_URL="}, append(env, "AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s")...), Config{PathStyle: style})
					at, err := s.endpointOf(bucket, "")
					require.NoError(t, err)
					signed, err := s3.NewPresignClient(s.client(bucket, "")).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: aws.String("key")})
					require.NoError(t, err)
					want, err := url.Parse(signed.URL)
					require.NoError(t, err)
					require.Equal(t, want.Scheme+"://"+strings.TrimSuffix(want.Host, ":443")+want.Path, at.url.JoinPath("key").String())
					require.Equal(t, strings.Split(want.Query().Get("X-Amz-Credential"), "/")[2], at.region)
				})
			}
		}
	}
}

// TestDirectoryBucketsAreRefused: they want sessions.
func TestDirectoryBucketsAreRefused(t *testing.T) {
	s := testStore(t, []string{"AWS_ACCESS_KEY_ID=k", "AWS_SECRET_ACCESS_KEY=s", "AWS_REGION=us-east-1", "AWS_ENDPOINT_URL="}, Config{})
	_, err := s.endpointOf("bucket--use1-az4--x-s3", "")
	require.ErrorIs(t, err, objstore.Unsupported)
}
