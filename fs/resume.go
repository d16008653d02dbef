package fs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"iter"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"coffer/objstore"
)

// A directory's rename that was broken off is finished by renaming again. What
// tells that a target is not a directory of the user's, for which the answer is
// ENOTEMPTY, is in the store, so that it outlives the mount:
//
//   - As long as objects were copied, and none deleted, everything below the
//     target is as a copy of what is below the source would be.
//   - Before the first is deleted a note is stored, under a scratch name that is
//     made of both names. What is below the target and no longer below the
//     source was there when the note was.
//
// Whatever is below both has to be the same then, bytes and metadata: nothing
// that differs from its copy is deleted, and nothing is overwritten that does.

// noteKey is where the note is that all of from was copied to dest.
func (m *move) noteKey() string {
	sum := sha256.Sum256([]byte(m.from + "\x00" + m.dest))
	return m.fsys.cfg.Prefix + objstore.ScratchPrefix + "moved-" + hex.EncodeToString(sum[:16])
}

// putNote stores the note, unless there is nothing that could be left. Where it
// is refused, by a policy for some keys, the rename goes on: only one that is
// broken off has to be finished by hand.
func (m *move) putNote(ctx context.Context) {
	if len(m.keys) == 0 {
		return
	}
	if _, err := putObject(ctx, m.bucket, m.noteKey(), nil, objstore.CreateOptions{}); err != nil {
		m.fsys.log.Debug("no note of a rename", "from", path(m.bucket, m.from), "err", err)
	}
}

func (m *move) removeNote(ctx context.Context) {
	if len(m.keys) == 0 && m.copied == nil {
		return
	}
	if err := m.bucket.Delete(ctx, objstore.Ref{Key: m.noteKey()})[0]; err != nil {
		m.fsys.log.Debug("the note of a rename stays", "from", path(m.bucket, m.from), "err", err)
	}
}

// takeUp fails with NotEmpty unless what lies below dest is what a rename of
// from to it has left there. What is copied already is in m.copied then.
func (m *move) takeUp(ctx context.Context) error {
	src, stopSrc := iter.Pull2(m.bucket.List(ctx, objstore.Query{Prefix: m.from}))
	defer stopSrc()
	dst, stopDst := iter.Pull2(m.bucket.List(ctx, objstore.Query{Prefix: m.dest}))
	defer stopDst()
	m.copied = map[string]objstore.Object{}
	var (
		g      errgroup.Group
		failed atomic.Bool
		mu     sync.Mutex // guards m.copied
		note   *objstore.Object
	)
	g.SetLimit(copiesInFlight)
	// Both listings are in the order of keys.
	err := func() error {
		s, sErr, sOK := src()
		d, dErr, dOK := dst()
		for {
			if err := errors.Join(sErr, dErr); err != nil {
				return err
			}
			if !dOK || failed.Load() {
				return nil // what is left at the source is still to be copied
			}
			from, to := strings.TrimPrefix(s.Key, m.from), strings.TrimPrefix(d.Key, m.dest)
			switch {
			case to == "":
				d, dErr, dOK = dst() // the marker is replaced in any case
			case sOK && from < to:
				s, sErr, sOK = src()
			case !sOK || to < from:
				if note == nil {
					o, err := m.noted(ctx)
					if err != nil {
						return err
					}
					note = &o
				}
				if inSeconds(d.LastModified).After(inSeconds(note.LastModified)) {
					return objstore.NotEmpty
				}
				d, dErr, dOK = dst()
			default:
				original, copied := s, d
				g.Go(func() error {
					o, err := m.sameCopy(ctx, original, copied)
					if err != nil {
						failed.Store(true)
						return err
					}
					mu.Lock()
					m.copied[original.Key] = o
					mu.Unlock()
					return nil
				})
				s, sErr, sOK = src()
				d, dErr, dOK = dst()
			}
		}
	}()
	return errors.Join(g.Wait(), err)
}

// noted returns the note; NotEmpty where there is none, or where the source is
// another directory since.
func (m *move) noted(ctx context.Context) (objstore.Object, error) {
	note, err := m.bucket.Head(ctx, objstore.Ref{Key: m.noteKey()})
	if objstore.KindOf(err) == objstore.NotExist {
		return note, objstore.NotEmpty
	}
	if err != nil {
		return note, err
	}
	marker, err := m.bucket.Head(ctx, objstore.Ref{Key: m.from})
	switch {
	case objstore.KindOf(err) == objstore.NotExist:
	case err != nil:
		return note, err
	case inSeconds(marker.LastModified).After(inSeconds(note.LastModified)):
		return note, objstore.NotEmpty
	}
	return note, nil
}

// sameCopy returns the object of copied; NotEmpty unless that is as a copy of
// original would be.
func (m *move) sameCopy(ctx context.Context, original, copied objstore.Entry) (objstore.Object, error) {
	a, err := m.bucket.Head(ctx, objstore.Ref{Key: original.Key})
	if err != nil {
		return a, err
	}
	b, err := m.bucket.Head(ctx, objstore.Ref{Key: copied.Key})
	if err != nil {
		return b, err
	}
	meta, _ := m.fsys.keepingMtime(original.LastModified).MetaOf(a.Meta)
	// An ETag is the same where it is an MD5, and the object no one in parts.
	sameBytes := a.Size == b.Size && (a.ETag == b.ETag || a.Checksum != "" && a.Checksum == b.Checksum)
	if !sameBytes || a.Headers != b.Headers || !maps.Equal(meta, b.Meta) {
		return b, objstore.NotEmpty
	}
	return b, nil
}

// isUsed reports whether files below the directory nm are not in the store, or
// no longer, in a way that only this mount knows.
func (d *dir) isUsed(nm string) bool {
	ch := d.live(nm)
	if ch == nil {
		return false
	}
	sub, ok := ch.Operations().(*dir)
	return ok && (sub.hasLocal() || sub.hasUnlinked())
}

// hasUnlinked reports whether a name below d is unlinked whose object is there.
func (d *dir) hasUnlinked() bool {
	d.mu.Lock()
	found := len(d.unlinked) > 0
	d.mu.Unlock()
	if found {
		return true
	}
	for _, ch := range d.Children() {
		if sub, ok := ch.Operations().(*dir); ok && sub.hasUnlinked() {
			return true
		}
	}
	return false
}
