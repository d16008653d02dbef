package cse_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/s3store"
)

// counting is what the stores of this package are beside.
type counting interface {
	Stats() cse.Stats
	Unseen() (objstore.Store, error)
}

// TestDamageIsCounted: each read that fails counts, and the log has a line for each
// version, with the frame.
func TestDamageIsCounted(t *testing.T) {
	var log bytes.Buffer
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	s := wrap(t, inner, cse.Config{Binding: cse.BindOff, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	b, inside := bucketOf(t, s, inner)
	put(t, b, "key", random(3*frame), nil)
	put(t, inside, "plain", []byte("plaintext"), nil)
	exchange(t, inside, "key", "frame", func(p []byte, _ map[string]string) []byte { p[1024+frame+100] ^= 1; return p })
	exchange(t, inside, "key", "header", func(p []byte, _ map[string]string) []byte { p[40] ^= 1; return p })
	exchange(t, inside, "key", "cut", func(p []byte, _ map[string]string) []byte { return p[:len(p)-1] })
	stats := s.(counting).Stats
	for _, c := range []struct {
		key   string
		r     objstore.Range
		fails bool
		want  cse.Stats
		log   string
	}{
		{"key", objstore.Range{}, false, cse.Stats{}, ""},
		{"frame", objstore.Range{Offset: 1, Length: 10}, false, cse.Stats{}, ""},
		{"frame", objstore.Range{}, true, cse.Stats{Failures: 1}, "frame 1"},
		{"frame", objstore.Range{Offset: frame, Length: 10}, true, cse.Stats{Failures: 2}, ""},
		{"header", objstore.Range{}, true, cse.Stats{Failures: 3}, "header"},
		{"cut", objstore.Range{}, true, cse.Stats{Failures: 4}, "cut off"},
		{"plain", objstore.Range{}, true, cse.Stats{Failures: 4, Plain: 1}, ""},
		{"absent", objstore.Range{}, true, cse.Stats{Failures: 4, Plain: 1}, ""},
	} {
		log.Reset()
		o, _ := inside.Head(t.Context(), objstore.Ref{Key: c.key})
		body, _, err := b.Get(t.Context(), objstore.Ref{Key: c.key, ETag: o.ETag}, objstore.GetOptions{Range: c.r})
		if err == nil {
			_, err = io.ReadAll(body)
			_ = body.Close()
		}
		if (err != nil) != c.fails || stats() != c.want {
			t.Errorf("%s %+v: %v, counted %+v", c.key, c.r, err, stats())
		}
		if lines := strings.Count(log.String(), "\n"); lines > 1 || (lines == 1) != (c.log != "") || !strings.Contains(log.String(), c.log) {
			t.Errorf("%s %+v: the log says %q, wanted %q", c.key, c.r, &log, c.log)
		}
	}
	before := stats()
	if prove(b, "header") == nil || prove(b, "plain") == nil {
		t.Error("proved")
	}
	if _, err := b.Copy(t.Context(), "copied", objstore.Ref{Key: "header"}, objstore.CopyOptions{}); err == nil {
		t.Error("copied")
	}
	if got := stats(); got.Failures != before.Failures+2 || got.Plain != before.Plain+1 {
		t.Errorf("after two that are not proved and one that is not copied: %+v, before %+v", got, before)
	}
}

// TestUnseen: a header that was read before is read again, and what is wrong with it is
// counted by the store that remembers it.
func TestUnseen(t *testing.T) {
	store := changing{openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true}), new(atomic.Int64)}
	s := wrap(t, store, cse.Config{})
	b, _ := bucketOf(t, s, store)
	put(t, b, "key", random(3*frame), nil)
	o, err := b.(objstore.Prover).Prove(t.Context(), objstore.Ref{Key: "key"})
	if err != nil {
		t.Fatal(err)
	}
	unseen, err := s.(counting).Unseen()
	if err != nil {
		t.Fatal(err)
	}
	again, err := unseen.Open(t.Context(), "bucket")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, again, "key", objstore.Range{}); err != nil {
		t.Error(err)
	}
	store.at.Store(40) // of the header
	body, _, err := b.Get(t.Context(), o.Ref("bucket"), objstore.GetOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, body)
		_ = body.Close()
	}
	if err != nil {
		t.Errorf("what is remembered: %v", err)
	}
	if _, err := read(t, again, "key", objstore.Range{}); !errors.Is(err, objstore.Integrity) {
		t.Errorf("unseen: %v", err)
	}
	if n := s.(counting).Stats().Failures; n != 1 {
		t.Errorf("%d failures are counted", n)
	}
}
