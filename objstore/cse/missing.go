package cse

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"coffer/objstore"
)

const (
	// missingFor is how long attributes are told without asking again for the key of a
	// version that no key opens: ls -l of a directory of them asks a KMS once for each.
	missingFor = time.Minute
	// missingRemembered is of how many versions that is remembered.
	missingRemembered = 8 << 10
)

// missing remembers which versions no key opens. Who opens one asks again: permissions
// change. Safe for concurrent use.
type missing struct {
	till *lru.Cache[objstore.Ref, time.Time]
}

func newMissing() (*missing, error) {
	till, err := lru.New[objstore.Ref, time.Time](missingRemembered)
	return &missing{till}, err
}

// note remembers v when err says that no key opens it, for good.
func (m *missing) note(v objstore.Ref, err error) {
	if _, later := passing(err); later || v.ETag == "" || objstore.KindOf(err) != objstore.KeyUnavailable {
		return
	}
	m.till.Add(v, time.Now().Add(missingFor))
}

// has reports whether it is remembered that no key opens v.
func (m *missing) has(v objstore.Ref) bool {
	till, ok := m.till.Get(v)
	return ok && time.Now().Before(till)
}
