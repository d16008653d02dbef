package storetest

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"coffer/objstore"
)

// testConditions checks conditional creation, one writer at a time.
func (s *suite) testConditions(t *testing.T) {
	b := s.bucket(t)
	for kind, size := range map[string]int64{"Single": 100, "Multipart": s.PartSize + 100} {
		t.Run(kind, func(t *testing.T) {
			key := "cond/" + kind
			first, second, third := random(10, size), random(11, size+1), random(12, size+2)
			conditional := func(data []byte, c objstore.Condition) (objstore.Object, error) {
				return write(t.Context(), b, key, data, objstore.CreateOptions{Cond: c})
			}
			_, err := conditional(first, objstore.Condition{IfMatch: "00000000000000000000000000000000"})
			wantKind(t, "IfMatch without an object", err, objstore.Stale, objstore.NotExist)
			mustBeAbsent(t, b, key)

			o, err := conditional(first, objstore.Condition{IfAbsent: true})
			if err != nil {
				t.Fatalf("IfAbsent without an object: %v", err)
			}
			_, err = conditional(second, objstore.Condition{IfAbsent: true})
			wantKind(t, "IfAbsent with an object", err, objstore.Exist)
			mustRead(t, b, key, first)

			_, err = conditional(second, objstore.Condition{IfMatch: "00000000000000000000000000000000"})
			wantKind(t, "IfMatch with another ETag", err, objstore.Stale)
			mustRead(t, b, key, first)

			o2, err := conditional(second, objstore.Condition{IfMatch: o.ETag})
			if err != nil {
				t.Fatalf("IfMatch with the ETag of Commit: %v", err)
			}
			mustRead(t, b, key, second)
			_, err = conditional(third, objstore.Condition{IfMatch: o.ETag})
			wantKind(t, "IfMatch with a former ETag", err, objstore.Stale)
			mustRead(t, b, key, second)
			if _, err := conditional(third, objstore.Condition{IfMatch: mustHead(t, b, key).ETag}); err != nil {
				t.Errorf("IfMatch with the ETag of Head: %v", err)
			}
			if o2.ETag == o.ETag {
				t.Errorf("two versions have ETag %q", o.ETag)
			}
		})
	}
}

// testRaces checks that of many writers with one condition exactly one wins.
func (s *suite) testRaces(t *testing.T) {
	b := s.bucket(t)
	const writers = 12
	for kind, size := range map[string]int64{"Single": 100, "Multipart": s.PartSize + 1} {
		for _, cond := range []string{"IfAbsent", "IfMatch"} {
			t.Run(cond+"/"+kind, func(t *testing.T) {
				if cond == "IfMatch" || kind == "Multipart" {
					accept(t, s.Accept.NoIfMatch)
				}
				key := "race/" + cond + "/" + kind
				c, lost := objstore.Condition{IfAbsent: true}, objstore.Exist
				if cond == "IfMatch" {
					c, lost = objstore.Condition{IfMatch: put(t, b, key, []byte("base")).ETag}, objstore.Stale
				}
				n := writers
				if kind == "Multipart" {
					n = 8 // each holds parts in memory
				}
				var wins atomic.Int64
				var winner atomic.Uint64
				start := make(chan struct{})
				var wg sync.WaitGroup
				for i := range n {
					wg.Go(func() {
						data := random(uint64(100+i), size)
						<-start
						_, err := write(t.Context(), b, key, data, objstore.CreateOptions{Cond: c})
						if err == nil {
							wins.Add(1)
							winner.Store(uint64(100 + i))
							return
						}
						wantKind(t, "a writer that lost", err, lost, objstore.Conflict)
					})
				}
				close(start)
				wg.Wait()
				if wins.Load() != 1 {
					t.Fatalf("%d of %d writers won, want exactly one", wins.Load(), n)
				}
				mustRead(t, b, key, random(winner.Load(), size))
			})
		}
	}
	t.Run("Overwrites", func(t *testing.T) { s.testAtomicOverwrite(t, b) })
}

// testAtomicOverwrite reads an object while it is replaced again and again:
// every read gives one version whole, or says Stale where it asked for one
// that is gone.
func (s *suite) testAtomicOverwrite(t *testing.T, b objstore.Bucket) {
	const key, versions, size = "race/over", 30, 300_000
	content := func(v int) []byte { return random(uint64(1000+v), size+int64(v)) }
	var mu sync.Mutex
	byTag := map[objstore.ETag]int{}
	add := func(v int) error {
		o, err := write(t.Context(), b, key, content(v), objstore.CreateOptions{})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		byTag[o.ETag] = v
		return nil
	}
	if err := add(0); err != nil {
		t.Fatal(err)
	}
	type result struct {
		tag  objstore.ETag
		data []byte
	}
	var results []result
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				head, err := b.Head(t.Context(), objstore.Ref{Key: key})
				if err != nil {
					t.Errorf("head during overwrites: %v", err)
					return
				}
				data, o, err := read(t.Context(), b, head.Ref(b.Name()), objstore.Range{})
				if errors.Is(err, objstore.Stale) {
					continue
				}
				if err != nil {
					t.Errorf("get during overwrites: %v", err)
					return
				}
				if o.ETag != head.ETag {
					t.Errorf("asked for ETag %q, got %q", head.ETag, o.ETag)
				}
				mu.Lock()
				results = append(results, result{o.ETag, data})
				mu.Unlock()
			}
		})
	}
	for v := 1; v < versions && !t.Failed(); v++ {
		if err := add(v); err != nil {
			t.Errorf("overwrite: %v", err)
		}
	}
	close(done)
	wg.Wait()
	if len(results) == 0 {
		t.Error("no read came between the overwrites")
	}
	for _, r := range results {
		v, ok := byTag[r.tag]
		if !ok {
			t.Fatalf("read ETag %q, which no writer was told of", r.tag)
		}
		late := len(r.data) - size // the version whose length it is
		if s.Accept.LateETag != "" && late > v && late < versions {
			v = late
		}
		if want := content(v); string(r.data) != string(want) {
			t.Fatalf("version %d: %s", v, differ(r.data, want))
		}
	}
	t.Logf("%d reads during %d overwrites", len(results), versions)
}
