package storetest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"coffer/objstore"
)

// testConcurrency uses one Bucket from many goroutines; the race detector is
// half of the test.
func (s *suite) testConcurrency(t *testing.T) {
	b := s.bucket(t)
	shared := random(90, s.PartSize+17)
	put(t, b, "shared", shared)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for round := range 5 {
				if err := s.work(t, b, worker, round, shared); err != nil {
					t.Errorf("worker %d, round %d: %v", worker, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := keys(list(t, b, objstore.Query{})); len(got) != 1 || got[0] != "shared" {
		t.Errorf("left over: %q", got)
	}
}

// work does one of everything on keys of its own, and reads the shared object.
func (s *suite) work(t *testing.T, b objstore.Bucket, worker, round int, shared []byte) error {
	ctx := t.Context()
	key := fmt.Sprintf("worker/%d/%d", worker, round)
	size := int64(worker*1000 + round)
	if round == 4 {
		size = s.PartSize + size
	}
	data := random(uint64(worker*100+round), size)
	if _, err := write(ctx, b, key, data, objstore.CreateOptions{Meta: map[string]string{"worker": fmt.Sprint(worker)}}); err != nil {
		return err
	}
	off := int64(worker*1000 + round)
	got, _, err := read(ctx, b, objstore.Ref{Key: "shared"}, objstore.Range{Offset: off, Length: 100_000})
	if err != nil {
		return err
	}
	if want := shared[off : off+100_000]; !bytes.Equal(got, want) {
		return fmt.Errorf("shared object: %s", differ(got, want))
	}
	if _, err := b.Copy(ctx, key+"-copy", objstore.Ref{Key: key}, objstore.CopyOptions{}); err != nil {
		return err
	}
	for _, k := range []string{key, key + "-copy"} {
		got, o, err := read(ctx, b, objstore.Ref{Key: k}, objstore.Range{})
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data) || o.Meta["worker"] != fmt.Sprint(worker) {
			return fmt.Errorf("%s: metadata %q, %s", k, o.Meta, differ(got, data))
		}
	}
	n := 0
	for _, err := range b.List(ctx, objstore.Query{Prefix: key}) {
		if err != nil {
			return err
		}
		n++
	}
	if n != 2 {
		return fmt.Errorf("listed %d keys under %s, want 2", n, key)
	}
	for _, err := range b.Delete(ctx, objstore.Ref{Key: key}, objstore.Ref{Key: key + "-copy"}) {
		if err != nil {
			return err
		}
	}
	return nil
}
