package storetest

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"coffer/objstore"
)

// testCopy checks copies inside the store.
func (s *suite) testCopy(t *testing.T) {
	b, other := s.bucket(t), s.bucket(t)
	meta := map[string]string{"name": "Grüße", "mode": "33188"}
	headers := objstore.Headers{ContentType: "image/x-test", CacheControl: "max-age=7", ContentDisposition: "inline",
		ContentEncoding: "identity", ContentLanguage: "de", Expires: "Wed, 21 Oct 2065 07:28:00 GMT"}
	newHeaders := objstore.Headers{ContentType: "text/plain"}
	newMeta := map[string]string{"fresh": "yes"}
	more := map[string]string{"name": meta["name"], "mode": meta["mode"], "fresh": "yes"}
	full := map[string]string{"all": strings.Repeat("x", objstore.MetaMax-len("all"))}
	tooLong := map[string]string{"fresh": strings.Repeat("x", objstore.MetaMax)}
	data := map[string][]byte{"single": random(40, 1000), "multipart": random(41, 2*s.PartSize+5), "empty": nil}
	for key, d := range data {
		if _, err := write(t.Context(), b, key, d, objstore.CreateOptions{Meta: meta, Headers: headers}); err != nil {
			t.Fatal(err)
		}
	}
	for src, want := range data {
		for _, tc := range []struct {
			name    string
			opts    objstore.CopyOptions
			meta    map[string]string
			headers objstore.Headers
		}{
			{"Kept", objstore.CopyOptions{}, meta, headers},
			{"NewMeta", objstore.CopyOptions{Meta: newMeta}, newMeta, headers},
			{"FullMeta", objstore.CopyOptions{Meta: full}, full, headers},
			{"NoMeta", objstore.CopyOptions{Meta: map[string]string{}}, nil, headers},
			{"NewHeaders", objstore.CopyOptions{Headers: &newHeaders}, meta, newHeaders},
			{"Missing", objstore.CopyOptions{Missing: newMeta, MissingUnless: []string{"absent"}}, more, headers},
			{"NotMissing", objstore.CopyOptions{Missing: map[string]string{"mode": "1", "fresh": "yes"}}, meta, headers},
			{"NotMissingUnless", objstore.CopyOptions{Missing: newMeta, MissingUnless: []string{"mode"}}, meta, headers},
			{"NoRoomForMissing", objstore.CopyOptions{Missing: tooLong}, meta, headers},
			{"AllNew", objstore.CopyOptions{Meta: newMeta, Headers: &newHeaders}, newMeta, newHeaders},
		} {
			if src == "multipart" && tc.name != "Kept" && tc.name != "Missing" && tc.name != "AllNew" {
				continue // megabytes that would prove little more
			}
			for place, dst := range map[string]objstore.Bucket{"Same": b, "Across": other} {
				t.Run(src+"/"+tc.name+"/"+place, func(t *testing.T) {
					key := "copies/" + src + tc.name
					o, err := dst.Copy(t.Context(), key, objstore.Ref{Bucket: b.Name(), Key: src}, tc.opts)
					if err != nil {
						t.Fatal(err)
					}
					got := mustRead(t, dst, key, want)
					if o.ETag == "" || o.ETag != got.ETag {
						t.Errorf("Copy reports ETag %q, Get %q", o.ETag, got.ETag)
					}
					s.checkCopied(t, got, tc.meta, tc.headers)
				})
			}
		}
	}
	t.Run("OntoItself", func(t *testing.T) {
		for src, want := range data {
			before := mustHead(t, b, src)
			if _, err := b.Copy(t.Context(), src, before.Ref(b.Name()), objstore.CopyOptions{Meta: newMeta}); err != nil {
				t.Fatal(err)
			}
			s.checkCopied(t, mustRead(t, b, src, want), newMeta, headers)
		}
	})
	t.Run("Overwrites", func(t *testing.T) {
		put(t, b, "target", []byte("to be replaced"))
		if _, err := b.Copy(t.Context(), "target", objstore.Ref{Key: "single"}, objstore.CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "target", data["single"])
	})
	t.Run("Source", func(t *testing.T) {
		_, err := b.Copy(t.Context(), "x", objstore.Ref{Key: "absent"}, objstore.CopyOptions{})
		wantKind(t, "copy of an absent object", err, objstore.NotExist)
		old := put(t, b, "changing", []byte("old"))
		put(t, b, "changing", []byte("new"))
		_, err = b.Copy(t.Context(), "x", old.Ref(b.Name()), objstore.CopyOptions{})
		wantKind(t, "copy of a former ETag", err, objstore.Stale)
		mustBeAbsent(t, b, "x")
	})
	t.Run("Condition", func(t *testing.T) {
		old := put(t, b, "guarded", []byte("guarded"))
		src := objstore.Ref{Key: "single"}
		_, err := b.Copy(t.Context(), "guarded", src, objstore.CopyOptions{Cond: objstore.Condition{IfAbsent: true}})
		wantKind(t, "copy IfAbsent over an object", err, objstore.Exist)
		_, err = b.Copy(t.Context(), "guarded", src, objstore.CopyOptions{Cond: objstore.Condition{IfMatch: "00000000000000000000000000000000"}})
		wantKind(t, "copy IfMatch with another ETag", err, objstore.Stale)
		mustRead(t, b, "guarded", []byte("guarded"))
		if _, err := b.Copy(t.Context(), "guarded", src, objstore.CopyOptions{Cond: objstore.Condition{IfMatch: old.ETag}}); err != nil {
			t.Errorf("copy IfMatch with the right ETag: %v", err)
		}
		if _, err := b.Copy(t.Context(), "free", src, objstore.CopyOptions{Cond: objstore.Condition{IfAbsent: true}}); err != nil {
			t.Errorf("copy IfAbsent to a free key: %v", err)
		}
	})
}

// checkCopied compares what a copy has beside its bytes.
func (s *suite) checkCopied(t *testing.T, o objstore.Object, meta map[string]string, headers objstore.Headers) {
	t.Helper()
	if !maps.Equal(o.Meta, meta) {
		t.Errorf("copy has metadata %q, want %q", o.Meta, meta)
	}
	if o.Headers != headers {
		t.Errorf("copy has headers %+v, want %+v", o.Headers, headers)
	}
	if o.Encryption.Mode != s.Mode {
		t.Errorf("copy has mode %q, want %q", o.Encryption.Mode, s.Mode)
	}
}

// testCopyRange checks writers that append bytes of existing objects, at any
// length: what is too small for a part of its own is the writer's business.
func (s *suite) testCopyRange(t *testing.T) {
	b := s.bucket(t)
	src := random(50, 3*s.PartSize+9)
	source := put(t, b, "source", src)
	ref := source.Ref(b.Name())
	probe, err := b.Create(t.Context(), "probe", objstore.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, offered := probe.(objstore.RangeCopier)
	if err := probe.Abort(); err != nil {
		t.Fatal(err)
	}
	if !offered {
		t.Skip("the writer does not offer CopyRange, which is optional")
	}
	type piece struct {
		off, n int64 // of the source; n bytes of own data when off < 0
	}
	p := s.PartSize
	for name, pieces := range map[string][]piece{
		"Whole":          {{0, 3*p + 9}},
		"Head":           {{0, p + 1}},
		"SmallPieces":    {{5, 100}, {0, 1}, {3*p + 8, 1}},
		"OwnThenCopied":  {{-1, 100}, {0, 2 * p}},
		"CopiedThenOwn":  {{0, 2 * p}, {-1, 100}},
		"Mixed":          {{10, p}, {-1, 7}, {p, p + 3}, {-1, p + 1}, {0, 20}, {2 * p, p + 9}, {-1, 1}},
		"Nothing":        {{100, 0}},
		"OneSmallCopy":   {{7, 10}},
		"EndWithSmall":   {{0, p}, {p, 1}},
		"RepeatedRanges": {{0, p}, {0, p}},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := b.Create(t.Context(), "dst", objstore.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			for i, pc := range pieces {
				if pc.off < 0 {
					own := random(uint64(60+i), pc.n)
					want = append(want, own...)
					_, err = w.Write(own)
				} else {
					want = append(want, src[pc.off:pc.off+pc.n]...)
					err = w.(objstore.RangeCopier).CopyRange(t.Context(), ref, pc.off, pc.n)
				}
				if err != nil {
					t.Fatalf("piece %d %+v: %v", i, pc, errors.Join(err, w.Abort()))
				}
			}
			if _, err := w.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if o := mustRead(t, b, "dst", want); o.Encryption.Mode != s.Mode {
				t.Errorf("object has mode %q, want %q", o.Encryption.Mode, s.Mode)
			}
		})
	}
	t.Run("Stale", func(t *testing.T) {
		old := put(t, b, "changing", src[:p+1])
		put(t, b, "changing", src[1:p+2])
		for name, n := range map[string]int64{"small": 10, "large": p + 1} {
			w, err := b.Create(t.Context(), "dst-"+name, objstore.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			// A writer may copy in the background: the error comes here or later.
			err = w.(objstore.RangeCopier).CopyRange(t.Context(), old.Ref(b.Name()), 0, n)
			if err == nil {
				_, err = w.Commit(t.Context())
			}
			wantKind(t, name+" range of a former ETag", err, objstore.Stale)
			if err := w.Abort(); err != nil {
				t.Errorf("abort: %v", err)
			}
			mustBeAbsent(t, b, "dst-"+name)
		}
	})
}
