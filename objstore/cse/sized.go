package cse

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// sized remembers what was used latest, as much as fits in so many bytes. Safe for
// concurrent use.
type sized[K comparable, V any] struct {
	cost  func(V) int64
	most  int64
	mu    sync.Mutex
	lru   *simplelru.LRU[K, V] // guarded by mu
	bytes int64                // guarded by mu: of all values
}

func newSized[K comparable, V any](most int64, cost func(V) int64) (*sized[K, V], error) {
	s := &sized[K, V]{cost: cost, most: most}
	var err error
	// It is bounded by bytes alone. What leaves it is told of with mu held.
	s.lru, err = simplelru.NewLRU(math.MaxInt, func(_ K, v V) { s.bytes -= cost(v) })
	return s, err
}

// Get returns a value, which counts as a use.
func (s *sized[K, V]) Get(k K) (V, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lru.Get(k)
}

// Contains reports whether there is a value.
func (s *sized[K, V]) Contains(k K) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lru.Contains(k)
}

// Add puts a value, and forgets those that nobody has used for longest. One that does
// not fit at all is not kept.
func (s *sized[K, V]) Add(k K, v V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(k)
	s.lru.Add(k, v)
	s.bytes += s.cost(v)
	for s.bytes > s.most {
		s.lru.RemoveOldest()
	}
}
