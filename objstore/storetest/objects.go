package storetest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"maps"
	"strings"
	"testing"
	"time"

	"coffer/objstore"
)

// testObjects checks that objects of every interesting size come back.
func (s *suite) testObjects(t *testing.T) {
	b := s.bucket(t)
	sizes := []int64{0, 1, 4096, 100_003, s.PartSize - 1, s.PartSize, s.PartSize + 1, 2*s.PartSize + 12_345}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			key := fmt.Sprintf("objects/%d", size)
			data := random(uint64(size), size)
			before := time.Now().Add(-5 * time.Second) // the server's clock may tick in seconds
			committed := put(t, b, key, data)
			head := mustHead(t, b, key)
			got := mustRead(t, b, key, data)
			for what, o := range map[string]objstore.Object{"Commit": committed, "Head": head, "Get": got} {
				if o.Key != key {
					t.Errorf("%s reports key %q, want %q", what, o.Key, key)
				}
				if o.ETag == "" || o.ETag != head.ETag {
					t.Errorf("%s reports ETag %q, Head %q", what, o.ETag, head.ETag)
				}
				if !o.SizeKnown || o.Size != size {
					t.Errorf("%s reports size %d (known: %v), want %d", what, o.Size, o.SizeKnown, size)
				}
				if o.StoredSize < size {
					t.Errorf("%s reports stored size %d, less than the %d visible", what, o.StoredSize, size)
				}
				checkCRC(t, what, o, data)
			}
			for what, o := range map[string]objstore.Object{"Head": head, "Get": got} {
				if o.LastModified.Before(before) || o.LastModified.After(time.Now().Add(5*time.Second)) {
					t.Errorf("%s reports last modified %v, now is %v", what, o.LastModified, time.Now())
				}
			}
		})
	}
	mustBeAbsent(t, b, "objects/absent")
	t.Run("Checksum", func(t *testing.T) {
		accept(t, s.Accept.NoChecksum)
		for _, size := range []int64{100_003, 2*s.PartSize + 12_345} {
			if o := mustHead(t, b, fmt.Sprintf("objects/%d", size)); o.Checksum == "" || !o.ChecksumOfWhole {
				t.Errorf("%d bytes have the checksum %q, of the whole: %v", size, o.Checksum, o.ChecksumOfWhole)
			}
		}
	})

	t.Run("Overwrite", func(t *testing.T) {
		first := put(t, b, "over", []byte("first"))
		second := put(t, b, "over", []byte("second, longer"))
		if first.ETag == second.ETag {
			t.Errorf("two versions have ETag %q", first.ETag)
		}
		mustRead(t, b, "over", []byte("second, longer"))
		put(t, b, "over", nil)
		mustRead(t, b, "over", nil)
	})
	t.Run("ManyWrites", func(t *testing.T) {
		w, err := b.Create(t.Context(), "writes", objstore.CreateOptions{SizeHint: 3}) // a wrong hint
		if err != nil {
			t.Fatal(err)
		}
		want := random(1, 50_000)
		buf := make([]byte, 64)
		for rest, n := want, 0; len(rest) > 0; rest = rest[n:] {
			n = copy(buf, rest)
			if _, err := w.Write(buf[:n]); err != nil {
				t.Fatal(err)
			}
			clear(buf) // a Writer keeps no reference to what it was given
		}
		if _, err := w.Write(nil); err != nil {
			t.Errorf("empty write: %v", err)
		}
		if _, err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "writes", want)
	})
	t.Run("LargeWrite", func(t *testing.T) {
		w, err := b.Create(t.Context(), "large", objstore.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := random(2, 2*s.PartSize+77)
		given := bytes.Clone(want)
		if _, err := w.Write(given); err != nil {
			t.Fatal(err)
		}
		clear(given)
		if _, err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "large", want)
	})
}

// checkCRC fails when what a store tells of the sum of an object is not so: a
// reader that compares would call right bytes damaged.
func checkCRC(t *testing.T, what string, o objstore.Object, data []byte) {
	t.Helper()
	crc, sum, ok := o.CRC()
	if !ok {
		return
	}
	want := crc64.Checksum(data, crc64.MakeTable(crc.Poly))
	if crc.Bits == 32 {
		want = uint64(crc32.Checksum(data, crc32.MakeTable(uint32(crc.Poly))))
	}
	if sum != want {
		t.Errorf("%s reports %s %s, the %d bytes have %s", what, crc.Name, crc.Text(sum), len(data), crc.Text(want))
	}
}

// testMetadata checks that user metadata and headers come back unchanged.
func (s *suite) testMetadata(t *testing.T) {
	b := s.bucket(t)
	headers := objstore.Headers{
		ContentType: "text/x-coffer; charset=utf-8", ContentEncoding: "identity", ContentLanguage: "ja",
		ContentDisposition: `attachment; filename="a b.txt"`, CacheControl: "max-age=60, private",
		Expires: "Wed, 21 Oct 2065 07:28:00 GMT",
	}
	for _, tc := range []struct {
		name string
		meta map[string]string
		skip Reason
	}{
		{name: "None"},
		{name: "Plain", meta: map[string]string{"mode": "33188", "mtime": "1700000000.123456789", "with-dash": "x y"}},
		{name: "UTF8", meta: map[string]string{"name": "Grüße – 日本語 🚀", "long": string(bytes.Repeat([]byte("é"), 200))}},
		{name: "LooksEncoded", meta: map[string]string{"word": "=?UTF-8?q?abc?="}, skip: s.Accept.DecodesMeta},
		{name: "Spaces", meta: map[string]string{"lead": " x", "trail": "x ", "inner": "a  b"}, skip: s.Accept.DecodesMeta},
		{name: "Empty", meta: map[string]string{"empty": "", "other": "x"}},
		{name: "Full", meta: map[string]string{"all": strings.Repeat("x", objstore.MetaMax-len("all"))}},
	} {
		sizes := map[string]int64{"Single": 10}
		if tc.name == "UTF8" || tc.name == "None" {
			sizes["Multipart"] = s.PartSize + 10 // another request carries it
		}
		for kind, size := range sizes {
			t.Run(tc.name+"/"+kind, func(t *testing.T) {
				accept(t, tc.skip)
				data := random(3, size)
				key := "meta/" + tc.name + "/" + kind
				given := maps.Clone(tc.meta)
				if _, err := write(t.Context(), b, key, data, objstore.CreateOptions{Meta: given, Headers: headers}); err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(given, tc.meta) {
					t.Errorf("Create changed the caller's map to %q", given)
				}
				for what, o := range map[string]objstore.Object{"Head": mustHead(t, b, key), "Get": mustRead(t, b, key, data)} {
					if !maps.Equal(o.Meta, tc.meta) {
						t.Errorf("%s reports metadata %q, want %q", what, o.Meta, tc.meta)
					}
					if o.Headers != headers {
						t.Errorf("%s reports headers %+v, want %+v", what, o.Headers, headers)
					}
				}
			})
		}
	}
}

// testVersions checks that an ETag in a Ref meets one version only.
func (s *suite) testVersions(t *testing.T) {
	b := s.bucket(t)
	old := put(t, b, "key", []byte("old"))
	if o, err := b.Head(t.Context(), objstore.Ref{Key: "key", ETag: old.ETag}); err != nil || o.ETag != old.ETag {
		t.Errorf("head of the current ETag: %q, %v", o.ETag, err)
	}
	if got, _, err := read(t.Context(), b, old.Ref(b.Name()), objstore.Range{}); err != nil || string(got) != "old" {
		t.Errorf("get of the current ETag: %q, %v", got, err)
	}
	put(t, b, "key", []byte("new one"))
	ref := objstore.Ref{Key: "key", ETag: old.ETag}
	_, err := b.Head(t.Context(), ref)
	wantKind(t, "head of a former ETag", err, objstore.Stale)
	_, _, err = read(t.Context(), b, ref, objstore.Range{})
	wantKind(t, "get of a former ETag", err, objstore.Stale)
	_, _, err = read(t.Context(), b, ref, objstore.Range{Offset: 1, Length: 1})
	wantKind(t, "range of a former ETag", err, objstore.Stale)
	ref.Key = "absent"
	_, err = b.Head(t.Context(), ref)
	wantKind(t, "head of an absent key with an ETag", err, objstore.NotExist)
	_, _, err = read(t.Context(), b, ref, objstore.Range{})
	wantKind(t, "get of an absent key with an ETag", err, objstore.NotExist)
}

// testRanges checks ranged reads, within and across parts.
func (s *suite) testRanges(t *testing.T) {
	b := s.bucket(t)
	large := 2*s.PartSize + 1000
	objects := map[string][]byte{"small": random(4, 1000), "parts": random(5, large), "empty": nil}
	for key, data := range objects {
		put(t, b, key, data)
	}
	p := s.PartSize
	for _, tc := range []struct {
		key         string
		off, length int64
	}{
		{"small", 0, 0}, {"small", 0, 1}, {"small", 0, 1000}, {"small", 0, 1001}, {"small", 1, 0}, {"small", 500, 250},
		{"small", 999, 0}, {"small", 999, 1}, {"small", 999, 100}, {"small", 990, 1 << 40},
		{"small", 1000, 0}, {"small", 1000, 1}, {"small", 1 << 40, 0}, {"small", 1 << 40, 5},
		{"parts", 0, 1}, {"parts", p - 1, 1}, {"parts", p, 1}, {"parts", p - 10, 20}, {"parts", p - 1, p + 2},
		{"parts", large - 1, 0}, {"parts", large - 1, 2}, {"parts", 65_530, 100_000}, {"parts", large, 0}, {"parts", large, 1},
		{"empty", 0, 0}, {"empty", 0, 1}, {"empty", 1, 0},
	} {
		t.Run(fmt.Sprintf("%s/%d+%d", tc.key, tc.off, tc.length), func(t *testing.T) {
			data := objects[tc.key]
			size := int64(len(data))
			got, o, err := read(t.Context(), b, objstore.Ref{Key: tc.key}, objstore.Range{Offset: tc.off, Length: tc.length})
			whole := tc.off == 0 && tc.length == 0 // the zero Range, which is never out of bounds
			if tc.off >= size && !whole {
				wantKind(t, "a range at or beyond the end", err, objstore.InvalidRange)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := data[tc.off:]
			if tc.length > 0 {
				want = want[:min(tc.length, int64(len(want)))]
			}
			if !bytes.Equal(got, want) {
				t.Error(differ(got, want))
			}
			if !o.SizeKnown || o.Size != size {
				t.Errorf("reported size %d (known: %v) is not that of the object, %d", o.Size, o.SizeKnown, size)
			}
		})
	}
}
