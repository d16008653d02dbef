package cse

import (
	"errors"
	"fmt"
	"sync/atomic"

	"coffer/objstore"
)

// Stats counts what was not handed out since the store was wrapped.
type Stats struct {
	// Failures are the reads, openings and copies that failed since what is stored is
	// not authentic. One damaged object counts as often as somebody asks for it.
	Failures int64 `json:"verification_failures"`
	// Plain are those that failed since the object is no message.
	Plain int64 `json:"plaintext_refused"`
}

// counters are the Stats of a store, and of those that were made by Unseen.
type counters struct{ failures, plain atomic.Int64 }

// Stats tells of what was refused until now.
func (s *store) Stats() Stats {
	return Stats{Failures: s.counts.failures.Load(), Plain: s.counts.plain.Load()}
}

// errPlain tells a plain object from a damaged one; both are of kind Integrity.
var errPlain = errors.New("the object is not encrypted by a client, and this mount reads no others (cse-mode: auto does)")

// refused counts what is not handed out because of err, which it returns; what is
// damaged it logs, once a version. The error names the frame.
func (b *bucket) refused(ref objstore.Ref, err error) error {
	switch {
	case objstore.KindOf(err) != objstore.Integrity:
	case errors.Is(err, errPlain):
		b.s.counts.plain.Add(1)
	default:
		b.s.counts.failures.Add(1)
		name := b.Name() + "/" + ref.Key
		b.s.warnOnce(fmt.Sprintf("damaged %s %s", name, ref.ETag), "an encrypted object is damaged, or somebody changed it", "key", name, "err", err)
	}
	return err
}
