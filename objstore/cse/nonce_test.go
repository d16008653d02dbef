package cse_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/message"
	"coffer/objstore/emulator"
	"coffer/objstore/s3store"
	"coffer/objstore/storetest"
)

// openSealed returns a store over an emulator, and who looks at all that it is sent.
func openSealed(t *testing.T) (objstore.Store, *emulator.Server, *storetest.Sealed) {
	t.Helper()
	srv, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), Dialect: "nosse"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Errorf("close the emulator: %v", err)
		}
	})
	seals := storetest.NewSealed(srv)
	front := httptest.NewServer(seals)
	t.Cleanup(front.Close)
	for _, v := range srv.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	s, err := s3store.New(t.Context(), s3store.Config{Endpoint: front.URL, PartSize: 5 << 20, AllowUnencrypted: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s, srv, seals
}

// TestNoNonceIsSentTwice: whatever happens to the requests of an upload, and whatever is
// stored after it under the same key and data key, no two things are sealed under one key
// and IV. Here the bucket is used; TestNoNonceIsSentTwice of package e2e has a mount.
func TestNoNonceIsSentTwice(t *testing.T) {
	inner, srv, seals := openSealed(t)
	ring := newRing(t)
	s := wrap(t, inner, cse.Config{Keyring: ring})
	if _, err := s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	small, large := random(2*frame+100), random(5<<20+10*frame+77)
	begin := func(data []byte, opts objstore.CreateOptions) objstore.Writer {
		w, err := b.Create(t.Context(), "key", opts)
		if err != nil {
			t.Fatal(err)
		}
		for p := data; len(p) > 0; p = p[min(len(p), 100_000):] {
			if _, err := w.Write(p[:min(len(p), 100_000)]); err != nil {
				t.Fatal(err)
			}
		}
		return w
	}
	store := func(data []byte) {
		o, err := begin(data, objstore.CreateOptions{}).Commit(t.Context())
		if err != nil || o.Size != int64(len(data)) {
			t.Fatalf("%d bytes, %v", o.Size, err)
		}
	}
	refused := func(w objstore.Writer) objstore.Keeper {
		if _, err := w.Commit(t.Context()); !errors.Is(err, objstore.Stale) {
			t.Fatalf("a commit in place of a version that is not there: %v", err)
		}
		return w.(objstore.Keeper)
	}
	var now objstore.Object // what is under the key
	for _, c := range []struct {
		name   string
		faults []emulator.Fault
		cut    int
		do     func()
		want   []byte
		again  int64 // bytes that are sent more than once, at least
	}{
		{"small", nil, 0, func() { store(small) }, small, 0},
		{"large", nil, 0, func() { store(large) }, large, 0},
		{"empty", nil, 0, func() { store(nil) }, nil, 0},
		{"a PUT that fails", []emulator.Fault{{Verb: "PutObject", Status: 500, Count: 2}}, 0, func() { store(small) }, small, 2 * frame},
		{"a PUT that is cut off", []emulator.Fault{{Verb: "PutObject", Reset: true, Count: 1}}, 0, func() { store(small) }, small, frame},
		{"a PUT that is cut in its middle", nil, 1, func() { store(small) }, small, frame},
		{"a PUT whose answer is lost", []emulator.Fault{{Verb: "PutObject", LoseReply: true, Count: 1}}, 0, func() { store(small) }, small, 0},
		{"parts that fail", []emulator.Fault{{Verb: "UploadPart", Status: 503, Count: 3}}, 0, func() { store(large) }, large, 600_000},
		{"parts that are cut off", []emulator.Fault{{Verb: "UploadPart", Reset: true, Count: 2}}, 0, func() { store(large) }, large, 600_000},
		{"parts that are cut in their middle", nil, 2, func() { store(large) }, large, 600_000},
		{"parts whose answers are lost", []emulator.Fault{{Verb: "UploadPart", LoseReply: true, Count: 2}}, 0, func() { store(large) }, large, 600_000},
		{"an end whose answer is lost", []emulator.Fault{{Verb: "CompleteMultipartUpload", LoseReply: true, Count: 1}}, 0, func() { store(large) }, large, 0},
		{"an end that fails", []emulator.Fault{{Verb: "CompleteMultipartUpload", Status: 500, Count: 2}}, 0, func() { store(large) }, large, 0},
		{"given up", nil, 0, func() {
			store(small)
			if err := begin(large, objstore.CreateOptions{}).Abort(); err != nil {
				t.Error(err)
			}
		}, small, 0},
		{"a small one is refused, and begun anew", nil, 0, func() {
			w := begin(small, objstore.CreateOptions{Cond: objstore.Condition{IfMatch: "other"}, Keep: true})
			if refused(w).Kept() {
				t.Error("a PUT that was refused is kept")
			}
			if err := w.Abort(); err != nil {
				t.Error(err)
			}
			store(small)
		}, small, 0},
		{"refused, and committed all the same", nil, 0, func() {
			k := refused(begin(large, objstore.CreateOptions{Cond: objstore.Condition{IfMatch: "other"}, Keep: true}))
			if _, err := k.Recommit(t.Context(), objstore.Condition{IfMatch: now.ETag}); err != nil {
				t.Error(err)
			}
		}, large, 0},
		{"refused, and committed by another process", nil, 0, func() {
			k := refused(begin(large, objstore.CreateOptions{Cond: objstore.Condition{IfMatch: "other"}, Keep: true}))
			token, err := k.Token()
			if err != nil {
				t.Fatal(err)
			}
			k.Entrust()
			other, err := wrap(t, inner, cse.Config{Keyring: ring}).Open(t.Context(), "bucket")
			if err != nil {
				t.Fatal(err)
			}
			r, err := other.(objstore.Resumer).Resume(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Recommit(t.Context(), objstore.Condition{}); err != nil {
				t.Error(err)
			}
		}, large, 0},
		{"something is appended", nil, 0, func() { store(append(bytes.Clone(large), small...)) }, append(bytes.Clone(large), small...), 0},
		{"something is cut off", nil, 0, func() { store(large[:20*frame]) }, large[:20*frame], 0},
		{"a copy and back", nil, 0, func() {
			for _, c := range [][2]string{{"key", "copy"}, {"copy", "key"}} {
				if _, err := b.Copy(t.Context(), c[1], objstore.Ref{Key: c[0]}, objstore.CopyOptions{}); err != nil {
					t.Error(err)
				}
			}
		}, large[:20*frame], 0},
	} {
		before, err := seals.Check()
		if err != nil {
			t.Fatalf("before %s: %v", c.name, err)
		}
		srv.Inject(c.faults...)
		seals.Cut(c.cut)
		c.do()
		if len(c.faults) > 0 && srv.Strikes() == 0 {
			t.Errorf("%s: nothing failed", c.name)
		}
		srv.ClearFaults()
		after, err := seals.Check()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := after.Again - before.Again; got < c.again {
			t.Errorf("%s: %d bytes were sent again, want %d: the test says nothing", c.name, got, c.again)
		}
		if got, err := read(t, b, "key", objstore.Range{}); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: there are %d bytes, right: %v, %v", c.name, len(got), bytes.Equal(got, c.want), err)
		}
		if now, err = b.Head(t.Context(), objstore.Ref{Key: "key"}); err != nil {
			t.Fatal(err)
		}
	}
	n, err := seals.Check()
	t.Logf("%+v, %v", n, err)
	// Ten of the messages are of 5 MiB and more.
	if n.Messages != 21 || n.Frames < 10*5*16 {
		t.Errorf("%+v were looked at", n)
	}
}

// repeating gives the same bytes to whoever asks, as a random generator that was copied
// with its state.
type repeating struct{}

func (repeating) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

// TestRepeatedNonceIsFound: the test above, and that of package e2e, can fail.
func TestRepeatedNonceIsFound(t *testing.T) {
	ring := newRing(t)
	// sealed is a message; those with one fixed ID are sealed twice under one key.
	sealed := func(plain []byte, fixed bool) []byte {
		if fixed {
			was := rand.Reader
			rand.Reader = repeating{}
			defer func() { rand.Reader = was }()
		}
		var p bytes.Buffer
		if err := cse.Encrypt(t.Context(), ring, message.Context{}, &p, bytes.NewReader(plain)); err != nil {
			t.Fatal(err)
		}
		return p.Bytes()
	}
	plain := random(10*frame + 5)
	other := bytes.Clone(plain)
	other[9*frame] ^= 1
	msg, again := sealed(plain, true), sealed(other, true)
	if !bytes.Equal(msg[:1024], again[:1024]) {
		t.Fatal("the messages have different headers: they are no example")
	}
	foreign := bytes.Clone(msg)
	foreign[200] ^= 1
	const half = 1024 + 3*(frame+32) + 1000
	type put struct {
		path string
		body []byte
	}
	whole := func(key string, p []byte) put { return put{"/bucket/" + key, p} }
	part := func(upload, number string, p []byte) put {
		return put{"/bucket/key?uploadId=" + upload + "&partNumber=" + number, p}
	}
	for _, c := range []struct {
		name  string
		puts  []put
		wrong string // in the error, "" for none
	}{
		{"one", []put{whole("key", msg)}, ""},
		{"the same bytes again", []put{whole("key", msg), whole("key", msg)}, ""},
		{"two messages", []put{whole("key", msg), whole("key", sealed(plain, false))}, ""},
		{"parts", []put{part("a", "1", msg[:half]), part("a", "2", msg[half:]), part("a", "2", msg[half:])}, ""},
		{"sealed again", []put{whole("key", msg), whole("key", again)}, "sealed twice"},
		{"more appended in place", []put{whole("key", sealed(plain[:10*frame], true)), whole("key", msg)}, "sealed twice"},
		{"cut in place", []put{whole("key", msg), whole("key", sealed(plain[:9*frame+5], true))}, "sealed twice"},
		{"another header", []put{whole("key", msg), whole("key", foreign)}, "sealed twice"},
		{"a part sealed again", []put{part("a", "1", msg[:half]), part("a", "2", msg[half:]), part("a", "2", again[half:])}, "sealed twice"},
		{"a part of another length", []put{part("a", "1", msg[:half]), part("a", "1", msg[:half-1])}, "was sent with"},
		{"in two uploads", []put{part("a", "1", msg[:half]), part("b", "1", msg[:half])}, "is in a and in b"},
		{"under two keys", []put{whole("key", msg), whole("other", msg)}, "is in PUT"},
		{"frames out of place", []put{whole("key", append(bytes.Clone(msg[:1024]), msg[1024+frame+32:]...))}, "no frame 1"},
		{"plaintext", []put{whole("key", plain)}, "no message"},
		{"plaintext in parts", []put{part("a", "2", plain), part("a", "1", plain)}, "no message"},
	} {
		seals := storetest.NewSealed(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
		for _, p := range c.puts {
			seals.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, p.path, bytes.NewReader(p.body)))
		}
		n, err := seals.Check()
		if c.wrong == "" && (err != nil || n.Messages == 0 || n.Frames < 12*n.Messages) {
			t.Errorf("%s: %+v, %v", c.name, n, err)
		}
		if c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
		}
	}
}
