package cse

import (
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"coffer/objstore"
)

const (
	// missingFor is how long it is believed that no key opens a version: ls -l of a
	// directory of them asks a KMS once for each, and one who was given a key waits so
	// long at most.
	missingFor = time.Minute
	// missingRemembered is of how many versions that is remembered.
	missingRemembered = 8 << 10
)

// missing remembers which versions no key opens. Safe for concurrent use.
type missing struct {
	refused *lru.Cache[objstore.Ref, refusal]
}

type refusal struct {
	err  objstore.Error
	till time.Time
}

func newMissing() (*missing, error) {
	refused, err := lru.New[objstore.Ref, refusal](missingRemembered)
	return &missing{refused}, err
}

// note remembers err when it says that no key opens v. What another answer of a KMS may
// change by itself is none that says so.
func (m *missing) note(v objstore.Ref, err error) {
	var e *objstore.Error
	if v.ETag == "" || !errors.As(err, &e) || e.Kind != objstore.KeyUnavailable {
		return
	}
	for _, k := range []objstore.Kind{objstore.Throttled, objstore.Unavailable, objstore.Expired, objstore.Canceled} {
		if errors.Is(err, k) {
			return
		}
	}
	r := refusal{*e, time.Now().Add(missingFor)}
	m.refused.Add(v, r)
	if v.VersionID != "" { // whoever asks for the current one does not name it
		v.VersionID = ""
		m.refused.Add(v, r)
	}
}

// look returns the error of an operation on v, if it was remembered that no key opens v.
func (m *missing) look(op string, v objstore.Ref) error {
	r, ok := m.refused.Get(v)
	if !ok || !time.Now().Before(r.till) {
		return nil
	}
	r.err.Op = op
	return &r.err
}
