package cse_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
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

// facts are Sizes in memory; change makes others of them when they are asked for.
type facts struct {
	mu     sync.Mutex
	kept   map[string][]byte
	change func([]byte) []byte
}

func (s *facts) Get(name []byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.kept[string(name)]
	if ok && s.change != nil {
		f = s.change(bytes.Clone(f))
	}
	return f, ok
}

func (s *facts) Put(name, fact []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[string][]byte{}
	}
	s.kept[string(name)] = bytes.Clone(fact)
}

// putForeign puts a message as another program writes it: with frames of its own length,
// and without metadata. It returns its profile.
func putForeign(t *testing.T, inside objstore.Bucket, ring *keyring.Ring, key string, data []byte, frame int) message.Profile {
	t.Helper()
	c, err := message.NewContext(map[string]string{"purpose": strings.Repeat("x", 1000)})
	if err != nil {
		t.Fatal(err)
	}
	e, err := ring.Wrap(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := message.NewSealer(e.Key, e.Context, e.EDKs, int64(frame))
	if err != nil {
		t.Fatal(err)
	}
	p := s.Header()
	i := int64(0)
	for ; len(data) > frame; i++ {
		if p, err = s.Seal(p, i, data[:frame]); err != nil {
			t.Fatal(err)
		}
		data = data[frame:]
	}
	if p, err = s.SealFinal(p, data); err != nil {
		t.Fatal(err)
	}
	put(t, inside, key, p, nil)
	return s.Profile()
}

// listed returns the sizes that a listing tells, -1 where it does not.
func listed(t *testing.T, b objstore.Bucket) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for e, err := range b.List(t.Context(), objstore.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		all[e.Key] = -1
		if e.SizeKnown {
			all[e.Key] = e.Size
		}
	}
	return all
}

func wantListed(t *testing.T, what string, b objstore.Bucket, want map[string]int64) {
	t.Helper()
	if got := listed(t, b); !maps.Equal(got, want) {
		t.Errorf("%s: listed as %v, want %v", what, got, want)
	}
}

// aesRing is a keyring of n AES keys.
func aesRing(t *testing.T, n int) *keyring.Ring {
	t.Helper()
	dir, list := t.TempDir(), ""
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), random(32), 0o600); err != nil {
			t.Fatal(err)
		}
		list += fmt.Sprintf("- {type: raw-aes, namespace: tests, name: key%d, key_file: '%d'}\n", i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "keyring"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _, err := keyring.Load(t.Context(), filepath.Join(dir, "keyring"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDeclaredSizes: of objects that are declared to have a profile a listing tells the
// sizes, and no other question is asked.
func TestDeclaredSizes(t *testing.T) {
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	for _, keys := range []int{1, 20} { // a header of 1024 bytes, and a longer one
		const theirFrame = 1000
		ring := aesRing(t, keys)
		w := wrap(t, inner, cse.Config{Keyring: ring})
		name := fmt.Sprint("bucket-", keys)
		if _, err := w.CreateBucket(t.Context(), name, objstore.CreateBucketOptions{}); err != nil {
			t.Fatal(err)
		}
		b, err := w.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		inside, err := inner.Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int64{}
		var theirs message.Profile
		for _, n := range []int{0, 1, frame - 1, frame, frame + 1, 2 * frame} {
			key := fmt.Sprint("mine/", n)
			put(t, b, key, random(n), nil)
			want[key] = int64(n)
		}
		for _, n := range []int{0, 1, theirFrame - 1, theirFrame, theirFrame + 1, 2 * theirFrame} {
			key := fmt.Sprint("theirs/", n)
			theirs = putForeign(t, inside, ring, key, random(n), theirFrame)
			want[key] = int64(n)
		}
		put(t, b, "elsewhere", random(10), nil)
		put(t, inside, "mine/dir/", nil, nil)
		put(t, inside, "mine/plain", random(100), nil) // too short for any message
		want["elsewhere"], want["mine/dir/"], want["mine/plain"] = -1, 0, -1

		n := counted{inner, new(atomic.Int32), new(atomic.Int32)}
		again, err := wrap(t, n, cse.Config{Keyring: ring, Declared: []cse.Declared{
			{Pattern: "bucket-*/mine/"}, {Pattern: name + "/theirs/", Profile: theirs},
			{Pattern: name + "/mine/", Profile: theirs}, // comes too late
		}}).Open(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		wantListed(t, fmt.Sprint(keys, " keys"), again, want)
		if n.gets.Load()+n.heads.Load() != 0 {
			t.Errorf("%d keys: %d GETs and %d HEADs", keys, n.gets.Load(), n.heads.Load())
		}
	}
}

// TestWrongDeclaration: what the metadata or the object itself tells wins, and is what
// listings tell from then on.
func TestWrongDeclaration(t *testing.T) {
	wrong := message.Profile{Header: 512, Frame: 4096}
	inner, ring := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true}), newRing(t)
	w := wrap(t, inner, cse.Config{Keyring: ring})
	mine, inside := bucketOf(t, w, inner)
	theirs := random(10_000)
	putForeign(t, inside, ring, "theirs", theirs, 500)
	put(t, mine, "mine", random(20_000), nil)
	b, err := wrap(t, inner, cse.Config{Keyring: ring, Declared: []cse.Declared{{Pattern: "bucket", Profile: wrong}}}).Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	for key, size := range listed(t, b) {
		if size == 10_000 || size == 20_000 || size < 0 {
			t.Errorf("%s is listed with %d bytes: the declaration is right, or not used", key, size)
		}
	}
	for key, want := range map[string]int64{"mine": 20_000, "theirs": 10_000} {
		if o, err := b.Head(t.Context(), objstore.Ref{Key: key}); err != nil || o.Size != want || o.Encryption.CSEMode != objstore.ModeCSEC {
			t.Errorf("HEAD of %s: %+v, %v", key, o, err)
		}
	}
	got, err := read(t, b, "theirs", objstore.Range{})
	if err != nil || !bytes.Equal(got, theirs) {
		t.Errorf("%d bytes are read, %v", len(got), err)
	}
	for _, key := range []string{"mine", "theirs"} {
		if err := prove(b, key); err != nil {
			t.Error(err)
		}
	}
	sizes := listed(t, b)
	if sizes["mine"] != 20_000 || sizes["theirs"] != 10_000 {
		t.Errorf("after they were opened: %v", sizes)
	}
}

// TestSizesOutliveTheStore: what one store has opened or written the next one lists, and
// asks for nothing but the attributes.
func TestSizesOutliveTheStore(t *testing.T) {
	inner, ring, kept := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true}), newRing(t), new(facts)
	open := func(ring *keyring.Ring) (objstore.Bucket, counted) {
		n := counted{inner, new(atomic.Int32), new(atomic.Int32)}
		b, err := wrap(t, n, cse.Config{Keyring: ring, Policy: cse.Auto, Sizes: kept}).Open(t.Context(), "bucket")
		if err != nil {
			t.Fatal(err)
		}
		return b, n
	}
	if _, err := wrap(t, inner, cse.Config{}).CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	b, _ := open(ring)
	inside, err := inner.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	const theirFrame = 4096
	want := map[string]int64{"mine": 100_000, "plain": 2000, "dir/": 0}
	put(t, b, "mine", random(100_000), nil)
	put(t, inside, "plain", random(2000), nil)
	put(t, inside, "dir/", nil, nil)
	for _, n := range []int{0, 1, theirFrame - 1, theirFrame, theirFrame + 1, 100_000} {
		key := fmt.Sprint("theirs/", n)
		putForeign(t, inside, ring, key, random(n), theirFrame)
		want[key] = int64(n)
	}
	for key := range want { // as ls -l does
		if _, err := b.Head(t.Context(), objstore.Ref{Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	wantListed(t, "by who asked", b, want)

	next, n := open(ring)
	wantListed(t, "by the next", next, want)
	if n.gets.Load()+n.heads.Load() != 0 {
		t.Errorf("%d GETs and %d HEADs", n.gets.Load(), n.heads.Load())
	}
	for key, size := range want {
		o, err := next.Head(t.Context(), objstore.Ref{Key: key})
		if err != nil || o.Size != size {
			t.Errorf("HEAD of %s: %+v, %v", key, o, err)
		}
		if mode := o.Encryption.CSEMode; strings.Contains(key, "theirs") && (mode != objstore.ModeCSEC || o.Encryption.CSE != "esdk-2/0x0478/4096") {
			t.Errorf("%s is encrypted by %q %q", key, mode, o.Encryption.CSE)
		}
	}
	if n.gets.Load() != 0 {
		t.Errorf("the attributes cost %d GETs", n.gets.Load())
	}
	if other, _ := open(newRing(t)); listed(t, other)["theirs/1"] != -1 {
		t.Error("what was opened with other keys is known without them")
	}
	putForeign(t, inside, ring, "theirs/1", random(7), theirFrame)
	if size := listed(t, next)["theirs/1"]; size != -1 {
		t.Errorf("another version is listed with %d bytes", size)
	}

	// Whatever becomes of the facts, who opens an object has its size.
	for i := range 16 {
		kept.change = func(p []byte) []byte { p[i] ^= 1; return p }
		b, _ := open(ring)
		listed(t, b)
		o, err := b.(objstore.Prover).Prove(t.Context(), objstore.Ref{Key: "theirs/100000"})
		if err != nil || o.Size != 100_000 {
			t.Errorf("byte %d: %d bytes, %v", i, o.Size, err)
		}
	}
	kept.change = func(p []byte) []byte { return p[:len(p)-1] }
	b, n = open(ring)
	for key, size := range listed(t, b) {
		if size > 0 {
			t.Errorf("%s has %d bytes by a fact that is none", key, size)
		}
	}
	if o, err := b.Head(t.Context(), objstore.Ref{Key: "theirs/4097"}); err != nil || o.Size != 4097 || n.gets.Load() == 0 {
		t.Errorf("%+v, %v, %d GETs", o, err, n.gets.Load())
	}
}

func TestParseDeclared(t *testing.T) {
	abci := message.Profile{Header: 722, Frame: 4096, Footer: 105}
	for text, want := range map[string][]cse.Declared{
		"":                      nil,
		"bucket=own":            {{Pattern: "bucket"}},
		"b*/a/prefix=abci":      {{Pattern: "b*/a/prefix", Profile: abci}},
		"b/p=h=10;f=1;s=0":      {{Pattern: "b/p", Profile: message.Profile{Header: 10, Frame: 1}}},
		"a=own:b/x:y=z/=abci":   {{Pattern: "a"}, {Pattern: "b/x:y=z/", Profile: abci}},
		"a/=h=722;f=4096;s=105": {{Pattern: "a/", Profile: abci}},
	} {
		got, err := cse.ParseDeclared(text)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		for _, d := range got {
			if again, err := cse.ParseDeclared(d.String()); err != nil || len(again) != 1 || again[0] != d {
				t.Errorf("%q: %v, %v", d, again, err)
			}
		}
	}
	for _, text := range []string{"bucket", "=own", "/prefix=own", "b=other", "b=h=0;f=1;s=0", "b=h=1;f=1;s=99999999", "[=own", "b=own,c", "b=abci:x"} {
		if got, err := cse.ParseDeclared(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	// What the recipe makes, measured: an empty file, and one of 100,000 bytes.
	for stored, size := range map[int64]int64{867: 0, 101_635: 100_000} {
		if l, err := abci.ForStored(stored); err != nil || l.Size() != size {
			t.Errorf("%d bytes are stored of %d, %v", stored, l.Size(), err)
		}
	}
}
