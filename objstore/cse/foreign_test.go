package cse_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/s3store"
)

const mib = 1 << 20

var (
	s3AES = bytes.Repeat([]byte("wrapping"), 4)
	s3RSA = sync.OnceValue(func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return key
	})
)

// s3Ring has the keys that objects of the S3 Encryption Client are for in these tests,
// and one more of each kind before them.
func s3Ring(t *testing.T, wrapping []byte, private *rsa.PrivateKey) *keyring.Ring {
	t.Helper()
	var members []keyring.Member
	for _, key := range [][]byte{random(32), wrapping} {
		k, err := keyring.NewRawAES("tests", "aes", key)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, keyring.Member{Key: k})
	}
	k, err := keyring.NewRawRSA("tests", "rsa", keyring.OAEPSHA256, nil, private)
	if err != nil {
		t.Fatal(err)
	}
	r, err := keyring.New(append(members, keyring.Member{Key: k})...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newGCM(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

func expand(t testing.TB, key, salt []byte, info string, n int) []byte {
	t.Helper()
	k, err := hkdf.Key(sha512.New, key, salt, info, n)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// s3Object is what the S3 Encryption Client makes of plain, its data key wrapped by
// "AES/GCM" or "RSA-OAEP-SHA1".
func s3Object(t testing.TB, version int, wrap string, plain []byte) (data []byte, meta map[string]string) {
	t.Helper()
	key, id := random(32), random(28)
	name, content, iv, aad := "AES/GCM/NoPadding", key, random(12), []byte(nil)
	if version == 3 {
		name, iv, aad = "115", bytes.Repeat([]byte{1}, 12), []byte{0, 0x73}
		content = expand(t, key, id, "\x00\x73DERIVEKEY", 32)
	}
	var wrapped []byte
	if wrap == "AES/GCM" {
		iv := random(12)
		wrapped = newGCM(t, s3AES).Seal(iv, iv, key, []byte(name))
	} else {
		var err error
		if wrapped, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, &s3RSA().PublicKey, slices.Concat([]byte{32}, key, []byte(name)), nil); err != nil {
			t.Fatal(err)
		}
	}
	meta = map[string]string{"x-amz-cek-alg": name, "x-amz-iv": b64(iv), "x-amz-tag-len": "128", "x-amz-wrap-alg": wrap,
		"x-amz-key-v2": b64(wrapped), "x-amz-matdesc": "{}", "x-amz-unencrypted-content-length": strconv.Itoa(len(plain))}
	if version == 3 {
		meta = map[string]string{"x-amz-c": name, "x-amz-i": b64(id), "x-amz-d": b64(expand(t, key, id, "\x00\x73COMMITKEY", 28)),
			"x-amz-w": map[string]string{"AES/GCM": "02", "RSA-OAEP-SHA1": "22"}[wrap], "x-amz-3": b64(wrapped), "x-amz-m": "{}"}
	}
	meta["own"] = "mine"
	return newGCM(t, content).Seal(nil, iv, plain, aad), meta
}

// ranges are some of an object of n bytes; the first is all of it.
func ranges(n int64) []objstore.Range {
	all := []objstore.Range{{}}
	for _, r := range []objstore.Range{{Length: 1}, {Offset: mib - 5, Length: 10}, {Offset: mib}, {Offset: n - 1}, {Offset: n / 2, Length: n}} {
		if r.Offset >= 0 && r.Offset < n {
			all = append(all, r)
		}
	}
	return all
}

func part(p []byte, r objstore.Range) []byte {
	p = p[r.Offset:]
	if r.Length > 0 && r.Length < int64(len(p)) {
		p = p[:r.Length]
	}
	return p
}

// readsBack reads an object in ranges and as a whole, as one that was met before and as
// one that was not.
func readsBack(t *testing.T, b objstore.Bucket, key string, plain []byte) objstore.Object {
	t.Helper()
	for range 2 {
		for _, r := range ranges(int64(len(plain))) {
			if got, err := read(t, b, key, r); err != nil || !bytes.Equal(got, part(plain, r)) {
				t.Errorf("%s, %+v: %d bytes, %v", key, r, len(got), err)
			}
		}
	}
	if _, err := read(t, b, key, objstore.Range{Offset: int64(len(plain)), Length: 1}); !errors.Is(err, objstore.InvalidRange) {
		t.Errorf("%s, behind its end: %v", key, err)
	}
	o, err := b.(objstore.Prover).Prove(t.Context(), objstore.Ref{Key: key})
	if err != nil || o.Size != int64(len(plain)) {
		t.Errorf("%s: opened with %d bytes, %v", key, o.Size, err)
	}
	return o
}

// TestS3EncryptionClient: objects of the client are shown with their size and read, and
// who reads them is not shown how they are wrapped.
func TestS3EncryptionClient(t *testing.T) {
	var log bytes.Buffer
	b, inside := newBucket(t, cse.Config{Keyring: s3Ring(t, s3AES, s3RSA()), Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for version, text := range map[int]string{2: "s3ec-2/0x0072/0", 3: "s3ec-3/0x0073/0"} {
		for _, wrap := range []string{"AES/GCM", "RSA-OAEP-SHA1"} {
			for _, n := range []int{0, 1, 9000, mib, mib + 17} {
				plain := random(n)
				data, meta := s3Object(t, version, wrap, plain)
				put(t, inside, "key", data, meta)
				o, err := b.Head(t.Context(), objstore.Ref{Key: "key"})
				if err != nil || o.Size != int64(n) || o.Encryption.CSE != text || o.Encryption.CSEMode != objstore.ModeCSEC || o.Encryption.Verified != "" {
					t.Errorf("V%d, %s, %d bytes: HEAD %+v, %v", version, wrap, n, o, err)
				}
				if !maps.Equal(o.Meta, map[string]string{"own": "mine"}) {
					t.Errorf("metadata %v", o.Meta)
				}
				if o := readsBack(t, b, "key", plain); o.Encryption.Verified != "object" || len(o.Meta) != 1 {
					t.Errorf("opened: %+v", o)
				}
			}
		}
	}
	if n := strings.Count(log.String(), "do not commit to their key"); n != 1 {
		t.Errorf("objects of version 2 are logged %d times", n)
	}
}

// TestGoldenS3Objects: what the official clients have written is read through a bucket.
func TestGoldenS3Objects(t *testing.T) {
	var golden struct {
		Plaintext string
		Objects   []struct {
			Name, Object string
			Meta         map[string]string
		}
	}
	text, err := os.ReadFile("s3ec/testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(text, &golden)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile("s3ec/testdata/golden.pem")
	if err != nil {
		t.Fatal(err)
	}
	der, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(der.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	wrapping := make([]byte, 32)
	for i := range wrapping {
		wrapping[i] = 0x40 + byte(i)
	}
	plain := []byte(golden.Plaintext)
	b, inside := newBucket(t, cse.Config{Keyring: s3Ring(t, wrapping, private.(*rsa.PrivateKey))})
	n := 0
	for _, g := range golden.Objects {
		data, err := base64.StdEncoding.DecodeString(g.Object)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(g.Name, "KMS") || strings.Contains(g.Name, "kms") {
			continue // package keyring tests it
		}
		n++
		put(t, inside, g.Name, data, g.Meta)
		readsBack(t, b, g.Name, plain)
	}
	if n != 4 {
		t.Errorf("%d objects", n)
	}
}

// damagedIsFound reads an object that is damaged: every range is an error, and no byte
// comes before it.
func damagedIsFound(t *testing.T, what string, b objstore.Bucket, key string, plain []byte) {
	t.Helper()
	for _, r := range ranges(int64(len(plain))) {
		if got, err := read(t, b, key, r); !errors.Is(err, objstore.Integrity) || len(got) > 0 {
			t.Errorf("%s: %+v: %d bytes, %v", what, r, len(got), err)
		}
	}
	if err := prove(b, key); !errors.Is(err, objstore.Integrity) {
		t.Errorf("%s: opened: %v", what, err)
	}
}

// TestDamagedS3Objects: not a byte is read of an object whose tag is not right.
func TestDamagedS3Objects(t *testing.T) {
	b, inside := newBucket(t, cse.Config{Keyring: s3Ring(t, s3AES, s3RSA())})
	for _, version := range []int{2, 3} {
		plain := random(2*mib + 100)
		data, meta := s3Object(t, version, "AES/GCM", plain)
		delete(meta, "x-amz-unencrypted-content-length")
		_, other := s3Object(t, version, "AES/GCM", plain)
		id := map[int]string{2: "x-amz-iv", 3: "x-amz-i"}[version]
		for what, change := range map[string]func(p []byte, m map[string]string) []byte{
			"a bit of the first block": func(p []byte, _ map[string]string) []byte { return flipped(p, 5) },
			"a bit of the last block":  func(p []byte, _ map[string]string) []byte { return flipped(p, 2*mib+50) },
			"a bit of the tag":         func(p []byte, _ map[string]string) []byte { return flipped(p, len(p)-1) },
			"a byte less":              func(p []byte, _ map[string]string) []byte { return p[:len(p)-1] },
			"a block less":             func(p []byte, _ map[string]string) []byte { return slices.Delete(bytes.Clone(p), mib, 2*mib) },
			"a byte more":              func(p []byte, _ map[string]string) []byte { return append(bytes.Clone(p), 0) },
			"nothing but a tag":        func(p []byte, _ map[string]string) []byte { return p[len(p)-16:] },
			"less than a tag":          func(p []byte, _ map[string]string) []byte { return p[:15] },
			"nothing":                  func([]byte, map[string]string) []byte { return nil },
			"another id":               func(p []byte, m map[string]string) []byte { m[id] = other[id]; return p },
			"another object's key":     func(p []byte, m map[string]string) []byte { maps.Copy(m, other); return p },
			"another length": func(p []byte, m map[string]string) []byte {
				m["x-amz-unencrypted-content-length"] = "10" // in V3: a name of V2
				return p
			},
			"a half of its envelope": func(p []byte, m map[string]string) []byte { delete(m, id); return p },
		} {
			m := maps.Clone(meta)
			p := change(data, m)
			put(t, inside, "key", p, m)
			if _, err := b.Head(t.Context(), objstore.Ref{Key: "key"}); err != nil {
				t.Errorf("%s: HEAD: %v", what, err)
			}
			damagedIsFound(t, what, b, "key", plain)
		}
	}
}

// TestRefusedEnvelopes: what has an envelope that is not read is never taken for a plain
// object, and can be seen.
func TestRefusedEnvelopes(t *testing.T) {
	v2 := map[string]string{"x-amz-key-v2": "AAAA", "x-amz-iv": b64(random(12)), "x-amz-tag-len": "128", "x-amz-wrap-alg": "AES/GCM",
		"x-amz-matdesc": "{}", "x-amz-cek-alg": "AES/CBC/PKCS5Padding"}
	for what, c := range map[string]struct {
		meta map[string]string
		text string
	}{
		"V1":                  {map[string]string{"x-amz-key": "AAAA", "x-amz-iv": "AAAA", "x-amz-matdesc": "{}"}, "version 1"},
		"CBC":                 {v2, "AES-CBC"},
		"an instruction file": {map[string]string{"x-amz-crypto-instr-file": ""}, "instruction file"},
		"one with such":       {map[string]string{"x-amz-c": "115", "x-amz-d": "AAAA", "x-amz-i": "AAAA"}, "instruction file"},
	} {
		for _, policy := range []cse.Policy{cse.Require, cse.Auto} {
			b, inside := newBucket(t, cse.Config{Keyring: s3Ring(t, s3AES, s3RSA()), Policy: policy})
			put(t, inside, "key", random(100), c.meta)
			for _, r := range []objstore.Range{{}, {Length: 10}} {
				if got, err := read(t, b, "key", r); !errors.Is(err, objstore.Unsupported) || !strings.Contains(err.Error(), c.text) || len(got) > 0 {
					t.Errorf("%s, %s: %d bytes, %v", what, policy, len(got), err)
				}
			}
			if o, err := b.Head(t.Context(), objstore.Ref{Key: "key"}); err != nil || o.Size != 100 || o.Encryption.CSE != "" || len(o.Meta) > 0 {
				t.Errorf("%s, %s: HEAD %+v, %v", what, policy, o, err)
			}
		}
	}
}

// TestEnvelopeOnMessage: an object is what its bytes say, whatever somebody has written
// into its metadata, and a new or renamed message has no envelope.
func TestEnvelopeOnMessage(t *testing.T) {
	ring := s3Ring(t, s3AES, s3RSA())
	b, inside := newBucket(t, cse.Config{Keyring: ring})
	plain, other := random(100_000), random(2000)
	data, envelope := s3Object(t, 3, "AES/GCM", other)
	put(t, b, "message", plain, nil)
	exchange(t, inside, "message", "message", func(p []byte, meta map[string]string) []byte { maps.Copy(meta, envelope); return p })
	readsBack(t, b, "message", plain)
	if o := renamed(t, b, inside, "message", "other"); len(o.Meta) != 3 || o.Meta["x-amz-3"] != "" || o.Meta["own"] != "mine" {
		t.Errorf("a renamed message has %v", o.Meta)
	}

	// A hint of a message beside an envelope.
	put(t, inside, "object", data, with(envelope, "coffer-esdk", "1;h=1024;f=65536;s=0", "coffer-bind", "AAAA"))
	readsBack(t, b, "object", other)
	o := renamed(t, b, inside, "object", "another")
	if !maps.Equal(o.Meta, envelope) {
		t.Errorf("a renamed object has %v", o.Meta)
	}
	readsBack(t, b, "another", other)
	changed, err := b.Copy(t.Context(), "another", objstore.Ref{Key: "another"}, objstore.CopyOptions{Meta: map[string]string{"own": "new", "x-amz-3": "AAAA"}})
	if err != nil || !maps.Equal(changed.Meta, map[string]string{"own": "new"}) {
		t.Errorf("with other metadata: %v, %v", changed.Meta, err)
	}
	readsBack(t, b, "another", other)

	// What is written over an object is a message, and shows nothing of the envelope.
	put(t, b, "another", plain, envelope)
	readsBack(t, b, "another", plain)
	if o, err := inside.Head(t.Context(), objstore.Ref{Key: "another"}); err != nil || o.Meta["own"] != "mine" || o.Meta["x-amz-3"] != "" || len(o.Meta) != 3 {
		t.Errorf("a message over an object has %v, %v", o.Meta, err)
	}

	// The bytes of each with the metadata of the other.
	put(t, inside, "mixed", data, map[string]string{"coffer-esdk": "1;h=1024;f=65536;s=0"})
	damagedIsFound(t, "ciphertext without its envelope", b, "mixed", other)
	put(t, inside, "mixed", plain, envelope)
	damagedIsFound(t, "plaintext with an envelope", b, "mixed", plain)
}

// renamed copies an object as a rename does, and returns what is stored.
func renamed(t *testing.T, b, inside objstore.Bucket, from, to string) objstore.Object {
	t.Helper()
	src, err := b.Head(t.Context(), objstore.Ref{Key: from})
	if err != nil {
		t.Fatal(err)
	}
	if o, err := b.Copy(t.Context(), to, src.Ref(""), objstore.CopyOptions{}); err != nil || o.Size != src.Size {
		t.Fatalf("copied %d bytes, %v", o.Size, err)
	}
	o, err := inside.Head(t.Context(), objstore.Ref{Key: to})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func with(meta map[string]string, pairs ...string) map[string]string {
	meta = maps.Clone(meta)
	for i := 0; i < len(pairs); i += 2 {
		meta[pairs[i]] = pairs[i+1]
	}
	return meta
}

// TestCiphertextLikeMessage: one object of the client in 8 million begins as a message.
func TestCiphertextLikeMessage(t *testing.T) {
	b, inside := newBucket(t, cse.Config{Keyring: s3Ring(t, s3AES, s3RSA())})
	plain := random(5000)
	for begin := []byte{2, 4, 0x78}; ; {
		data, meta := s3Object(t, 3, "AES/GCM", plain)
		if bytes.HasPrefix(data, begin[:1]) { // the rest is made so
			key := s3Content(t, meta)
			for i := range begin {
				plain[i] ^= data[i] ^ begin[i]
			}
			put(t, inside, "key", newGCM(t, key).Seal(nil, bytes.Repeat([]byte{1}, 12), plain, []byte{0, 0x73}), meta)
			break
		}
	}
	readsBack(t, b, "key", plain)
}

// s3Content is the key that the content of an object of V3 under s3AES is sealed with.
func s3Content(t *testing.T, meta map[string]string) []byte {
	t.Helper()
	wrapped, err := base64.StdEncoding.DecodeString(meta["x-amz-3"])
	if err != nil {
		t.Fatal(err)
	}
	key, err := newGCM(t, s3AES).Open(nil, wrapped[:12], wrapped[12:], []byte("115"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := base64.StdEncoding.DecodeString(meta["x-amz-i"])
	if err != nil {
		t.Fatal(err)
	}
	return expand(t, key, id, "\x00\x73DERIVEKEY", 32)
}

// TestS3Bindings: such objects are bound to no path.
func TestS3Bindings(t *testing.T) {
	b, inside := newBucket(t, cse.Config{Keyring: s3Ring(t, s3AES, s3RSA()), Binding: cse.BindStrict})
	plain := random(2000)
	data, meta := s3Object(t, 3, "AES/GCM", plain)
	put(t, inside, "key", data, meta)
	damagedIsFound(t, "bound to nothing", b, "key", plain)
}

// changing is a store that serves other bytes than it has, once it is told to.
type changing struct {
	objstore.Store
	at *atomic.Int64 // the byte that it changes, if not 0
}

func (c changing) Open(ctx context.Context, name string) (objstore.Bucket, error) {
	b, err := c.Store.Open(ctx, name)
	return changingBucket{b, c.at}, err
}

type changingBucket struct {
	objstore.Bucket
	at *atomic.Int64
}

func (b changingBucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	body, o, err := b.Bucket.Get(ctx, ref, opts)
	if err != nil {
		return body, o, err
	}
	p, err := io.ReadAll(body)
	if at := b.at.Load() - opts.Range.Offset; b.at.Load() != 0 && at >= 0 && at < int64(len(p)) {
		p[at] ^= 1
	}
	return struct {
		io.Reader
		io.Closer
	}{bytes.NewReader(p), body}, o, err
}

// TestWholeIsVerifiedOnce: after that a range costs one request, and what comes is
// compared with what was verified.
func TestWholeIsVerifiedOnce(t *testing.T) {
	ring := s3Ring(t, s3AES, s3RSA())
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	n := counted{changing{inner, new(atomic.Int64)}, new(atomic.Int32), new(atomic.Int32)}
	s := wrap(t, n, cse.Config{Keyring: ring})
	if _, err := s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	inside, err := inner.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	plain := random(4 * mib)
	data, meta := s3Object(t, 3, "AES/GCM", plain)
	put(t, inside, "object", data, meta)
	put(t, inside, "block", blockMessage(t, ring, message.Committed, nil, plain), nil)
	for _, key := range []string{"object", "block"} {
		b, err := wrap(t, n, cse.Config{Keyring: ring}).Open(t.Context(), "bucket")
		if err != nil {
			t.Fatal(err)
		}
		asked := func(what string, gets, heads int32, do func() error) {
			t.Helper()
			n.gets.Store(0)
			n.heads.Store(0)
			if err := do(); err != nil {
				t.Errorf("%s of %s: %v", what, key, err)
			}
			if n.gets.Load() != gets || n.heads.Load() != heads {
				t.Errorf("%s of %s: %d GETs and %d HEADs, not %d and %d", what, key, n.gets.Load(), n.heads.Load(), gets, heads)
			}
		}
		o := objstore.Object{}
		asked("its attributes", map[string]int32{"object": 0, "block": 1}[key], 1, func() (err error) {
			o, err = b.Head(t.Context(), objstore.Ref{Key: key})
			return err
		})
		get := func(r objstore.Range) ([]byte, error) {
			body, _, err := b.Get(t.Context(), o.Ref(""), objstore.GetOptions{Range: r})
			if err != nil {
				return nil, err
			}
			defer body.Close()
			return io.ReadAll(body)
		}
		asked("opening", 2, 0, func() error { return prove(b, key) })
		asked("a range", 1, 0, func() error {
			got, err := get(objstore.Range{Offset: 2*mib + 5, Length: 10})
			if !bytes.Equal(got, plain[2*mib+5:][:10]) {
				t.Errorf("other bytes")
			}
			return err
		})
		n.Store.(changing).at.Store(2*mib + 5000)
		for i := range int64(4) {
			got, err := get(objstore.Range{Offset: i * mib, Length: mib})
			if i == 2 && (!errors.Is(err, objstore.Integrity) || len(got) > 0) || i != 2 && (err != nil || !bytes.Equal(got, plain[i*mib:][:mib])) {
				t.Errorf("block %d of %s: %d bytes, %v", i, key, len(got), err)
			}
		}
		n.Store.(changing).at.Store(0)
		if b, err = wrap(t, n, cse.Config{Keyring: ring}).Open(t.Context(), "bucket"); err != nil {
			t.Fatal(err)
		}
		asked("all of it", 2, 0, func() error {
			got, err := read(t, b, key, objstore.Range{})
			if !bytes.Equal(got, plain) {
				t.Errorf("other bytes")
			}
			return err
		})
	}
}

// blockMessage is a message without frames; ring may have keys for every suite of 32
// bytes. signing is the key of a signature, where the suite has one.
func blockMessage(t testing.TB, ring *keyring.Ring, s message.Suite, signing *ecdsa.PrivateKey, plain []byte) []byte {
	t.Helper()
	e, err := ring.Wrap(t.Context(), message.Context{})
	if err != nil {
		t.Fatal(err)
	}
	field := func(p []byte, f []byte) []byte { return append(binary.BigEndian.AppendUint16(p, uint16(len(f))), f...) }
	c := e.Context.Append(nil)
	if signing != nil { // which only RSA keys open: they do not care for the context
		public := elliptic.MarshalCompressed(signing.Curve, signing.X, signing.Y)
		c = field(field([]byte{0, 1}, []byte("aws-crypto-public-key")), []byte(b64(public)))
	}
	number := string(binary.BigEndian.AppendUint16(nil, uint16(s)))
	id := random(32)
	p := append([]byte{2}, number...)
	p = append(p, id...)
	p = field(p, c)
	p = binary.BigEndian.AppendUint16(p, uint16(len(e.EDKs)))
	for _, k := range e.EDKs {
		p = field(field(field(p, []byte(k.Provider)), []byte(k.Info)), k.Ciphertext)
	}
	p = append(p, 1, 0, 0, 0, 0)
	p = append(p, expand(t, e.Key.Bytes(), id, "COMMITKEY", 32)...)
	aead := newGCM(t, expand(t, e.Key.Bytes(), id, number+"DERIVEKEY", 32))
	p = aead.Seal(p, make([]byte, 12), nil, p)
	iv := binary.BigEndian.AppendUint32(make([]byte, 8), 1)
	aad := append(bytes.Clone(id), "AWSKMSEncryptionClient Single Block\x00\x00\x00\x01"...)
	aad = binary.BigEndian.AppendUint64(aad, uint64(len(plain)))
	p = binary.BigEndian.AppendUint64(append(p, iv...), uint64(len(plain)))
	p = aead.Seal(p, iv, plain, aad)
	if signing != nil {
		sum := sha512.Sum384(p)
		signature, err := ecdsa.SignASN1(rand.Reader, signing, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		p = field(p, signature)
	}
	return p
}

// TestMessagesWithoutFrames: they are read through a bucket, signed or not; not a byte
// of what is damaged is.
func TestMessagesWithoutFrames(t *testing.T) {
	ring := s3Ring(t, s3AES, s3RSA())
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	buckets := map[cse.Signed]objstore.Bucket{}
	for _, policy := range []cse.Signed{cse.SignedAuto, cse.SignedStrict, cse.SignedReject} {
		s := wrap(t, inner, cse.Config{Keyring: ring, Signed: policy})
		if len(buckets) == 0 {
			if _, err := s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		if buckets[policy], err = s.Open(t.Context(), "bucket"); err != nil {
			t.Fatal(err)
		}
	}
	inside, err := inner.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	signing, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for s, c := range map[message.Suite]struct {
		signing        *ecdsa.PrivateKey
		text, verified string
	}{message.Committed: {nil, "esdk-2/0x0478/0", "object"}, 0x0578: {signing, "esdk-2/0x0578/0", "signature"}} {
		for _, n := range []int{0, 1, mib + 17} {
			plain := random(n)
			p := blockMessage(t, ring, s, c.signing, plain)
			put(t, inside, "key", p, nil)
			for policy, b := range buckets {
				o, err := b.Head(t.Context(), objstore.Ref{Key: "key"})
				if err != nil || o.Size != int64(n) || o.Encryption.CSE != c.text {
					t.Errorf("%v, %d bytes: HEAD %+v, %v", s, n, o, err)
				}
				if c.signing != nil && policy == cse.SignedReject {
					if got, err := read(t, b, "key", objstore.Range{}); !errors.Is(err, objstore.Unsupported) || len(got) > 0 {
						t.Errorf("%v, %s: %d bytes, %v", s, policy, len(got), err)
					}
					continue
				}
				if o := readsBack(t, b, "key", plain); o.Encryption.Verified != c.verified {
					t.Errorf("%v: %q is verified", s, o.Encryption.Verified)
				}
			}
			if n != mib+17 {
				continue
			}
			b := buckets[cse.SignedAuto]
			if o := renamed(t, b, inside, "key", "renamed"); o.Meta["coffer-bind"] == "" || o.Meta["coffer-esdk"] != "" {
				t.Errorf("renamed: %v", o.Meta)
			}
			readsBack(t, b, "renamed", plain)
			body := len(p) - n - 16 - 20
			if c.signing != nil {
				body = bytes.Index(p, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 17})
			}
			for what, changed := range map[string][]byte{
				"a bit of the header":     flipped(p, 50),
				"a bit of the IV":         flipped(p, body),
				"a bit of the length":     flipped(p, body+19),
				"a bit of the ciphertext": flipped(p, body+20+mib/2),
				"a bit of the tag":        flipped(p, body+20+n+15),
				"a byte less":             p[:len(p)-1],
				"a byte more":             append(bytes.Clone(p), 0),
				"a half":                  p[:len(p)/2],
				"no body":                 p[:body+3],
			} {
				put(t, inside, "changed", changed, nil)
				damagedIsFound(t, what, b, "changed", plain)
			}
		}
	}
}

// TestForeignObjectsAreAskedOnce: that no key opens an object is remembered for its
// attributes, and not for who opens it.
func TestForeignObjectsAreAskedOnce(t *testing.T) {
	mine, theirs := s3Ring(t, s3AES, s3RSA()), newRing(t)
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	n := counted{inner, new(atomic.Int32), new(atomic.Int32)}
	s := wrap(t, n, cse.Config{Keyring: theirs})
	b, inside := bucketOf(t, s, inner)
	data, meta := s3Object(t, 3, "AES/GCM", random(20_000))
	put(t, inside, "object", data, meta)
	put(t, inside, "block", blockMessage(t, mine, message.Committed, nil, random(20_000)), nil)
	for key, gets := range map[string]int32{"object": 0, "block": 1} {
		n.gets.Store(0)
		var o objstore.Object
		for range 3 {
			var err error
			if o, err = b.Head(t.Context(), objstore.Ref{Key: key}); err != nil {
				t.Errorf("HEAD of %s: %v", key, err)
			}
		}
		if n.gets.Load() != gets {
			t.Errorf("%d GETs for the attributes of %s, not %d", n.gets.Load(), key, gets)
		}
		for range 3 {
			_, err := b.(objstore.Prover).Prove(t.Context(), o.Ref(""))
			if !errors.Is(err, objstore.KeyUnavailable) || !strings.HasPrefix(err.Error(), "open ") {
				t.Errorf("opening %s: %v", key, err)
			}
		}
		if n.gets.Load() != gets+3 {
			t.Errorf("%d GETs for opening %s", n.gets.Load()-gets, key)
		}
		// All of it at once, of a version that nobody has named.
		if got, err := read(t, b, key, objstore.Range{}); !errors.Is(err, objstore.KeyUnavailable) || len(got) > 0 {
			t.Errorf("reading %s: %d bytes, %v", key, len(got), err)
		}
	}
}
