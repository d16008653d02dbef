package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// independent is an S3 client that shares no code with Coffer: what it finds
// in a bucket is what is there. Where the mounts of the test encrypt on this
// side, what it puts is a message as well, and what it finds is the plaintext
// of one, or a failure.
type independent struct {
	c      *minio.Client
	secure bool
	sse    encrypt.ServerSide // a customer key to read with; nil for none
	ring   *keyring.Ring      // of encryption on this side; nil for none
}

// client connects to the store that the environment names.
func client(t testing.TB, env []string) independent {
	t.Helper()
	v := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		v[name] = value
	}
	u, err := url.Parse(v["AWS_ENDPOINT_URL"])
	must(t, err)
	secure := u.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	must(t, err)
	if file := v["AWS_CA_BUNDLE"]; file != "" {
		pem, err := os.ReadFile(file)
		must(t, err)
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem)
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(v["AWS_ACCESS_KEY_ID"], v["AWS_SECRET_ACCESS_KEY"], ""),
		Secure: secure, Transport: transport, Region: v["AWS_REGION"], BucketLookup: minio.BucketLookupPath,
	})
	must(t, err)
	i := independent{c: c, secure: secure}
	if clientSide(t) {
		k, err := sharedKeyring()
		must(t, err)
		i.ring = k.ring
	}
	return i
}

// message is whether the object of a key is one: all are but markers of
// directories.
func (i independent) message(key string) bool {
	return i.ring != nil && !strings.HasSuffix(key, "/")
}

// decrypt writes what an object holds to w.
func (i independent) decrypt(key string, w io.Writer, stored io.Reader) error {
	if !i.message(key) {
		_, err := io.Copy(w, stored)
		return err
	}
	return cse.Decrypt(context.Background(), i.ring, false, w, stored)
}

// size returns how many bytes an object holds of which so many are stored; of
// one that is no message as many.
func (i independent) size(key string, stored int64) int64 {
	if !i.message(key) {
		return stored
	}
	l, err := message.Own.ForStored(stored)
	if err != nil {
		return stored
	}
	return l.Size()
}

// withCustomerKey returns a client that reads with a key of SSE-C, which this
// one sends over https only.
func (i independent) withCustomerKey(t testing.TB, key []byte) independent {
	t.Helper()
	if i.secure {
		sse, err := encrypt.NewSSEC(key)
		must(t, err)
		i.sse = sse
	}
	return i
}

func (i independent) makeBucket(t testing.TB, bucket string) {
	t.Helper()
	must(t, i.c.MakeBucket(context.Background(), bucket, minio.MakeBucketOptions{}))
}

func (i independent) put(t testing.TB, bucket, key, data string) {
	t.Helper()
	i.putWith(t, bucket, key, data, "application/octet-stream", nil)
}

func (i independent) putWith(t testing.TB, bucket, key, data, contentType string, meta map[string]string) {
	t.Helper()
	if i.message(key) {
		var sealed strings.Builder
		must(t, cse.Encrypt(context.Background(), i.ring, message.Context{}, &sealed, strings.NewReader(data)))
		data = sealed.String()
	}
	_, err := i.c.PutObject(context.Background(), bucket, key, strings.NewReader(data), int64(len(data)),
		minio.PutObjectOptions{ContentType: contentType, UserMetadata: meta, DisableMultipart: true})
	must(t, err)
}

// get returns an object's bytes, "" when it is absent.
func (i independent) get(t testing.TB, bucket, key string) string {
	t.Helper()
	o, err := i.c.GetObject(context.Background(), bucket, key, minio.GetObjectOptions{})
	must(t, err)
	defer o.Close()
	var b bytes.Buffer
	if err := i.decrypt(key, &b, o); err != nil {
		if minio.ToErrorResponse(err).Code == "NoSuchKey" {
			return ""
		}
		t.Fatal(err)
	}
	return b.String()
}

func (i independent) stat(t testing.TB, bucket, key string) minio.ObjectInfo {
	t.Helper()
	info, err := i.c.StatObject(context.Background(), bucket, key, minio.StatObjectOptions{})
	must(t, err)
	return info
}

// meta returns the user metadata, names in lower case, without what only
// messages have.
func (i independent) meta(t testing.TB, bucket, key string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for k, v := range i.stat(t, bucket, key).UserMetadata {
		m[strings.ToLower(k)] = v
	}
	if i.message(key) {
		delete(m, "coffer-esdk")
		delete(m, "coffer-bind")
	}
	return m
}

func (i independent) modified(t testing.TB, bucket, key string) time.Time {
	t.Helper()
	return i.stat(t, bucket, key).LastModified
}

// keys returns all keys of a bucket, each with its size.
func (i independent) keys(t testing.TB, bucket string) map[string]int64 {
	t.Helper()
	keys := map[string]int64{}
	for o := range i.c.ListObjects(context.Background(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		must(t, o.Err)
		keys[o.Key] = i.size(o.Key, o.Size)
	}
	return keys
}
