package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"coffer/objstore"
)

// verifyReport is the output of "coffer verify --json". As news it holds what was found
// since the last ones, and the sum of all news is the report.
type verifyReport struct {
	// Objects were read, and have so many bytes.
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
	// Gone are objects that were removed or replaced after they were listed.
	Gone    int64           `json:"gone"`
	Damaged []damagedObject `json:"damaged"`
	Skipped []skippedObject `json:"skipped"`
}

type damagedObject struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Error  string `json:"error"`
}

// skippedObject is one that is not in the store as it should be.
type skippedObject struct {
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// add makes r the sum of r and its news.
func (r *verifyReport) add(news verifyReport) {
	r.Objects += news.Objects
	r.Bytes += news.Bytes
	r.Gone += news.Gone
	r.Damaged = append(r.Damaged, news.Damaged...)
	r.Skipped = append(r.Skipped, news.Skipped...)
}

// tellEvery is how often a verifier tells how far it is.
const tellEvery = 200 * time.Millisecond

// changedTries bounds how often an object is read anew that is replaced while it is read.
const changedTries = 3

// verifier reads objects as they lie in a store, and tells which cannot be trusted. What
// it needs of memory depends on how many it reads at a time, not on how many there are.
type verifier struct {
	store objstore.Store
	// jobs is how many objects are read at a time.
	jobs int
	// tell gets the news; when it fails, the work ends. One goroutine calls it.
	tell func(verifyReport) error

	listed, objects, bytes, gone atomic.Int64
	damaged                      chan damagedObject
	buffers                      sync.Pool
}

// verifyBuffer is the length of what is read at once: a frame that Coffer writes.
const verifyBuffer = 64 << 10

// unseen returns the store as one that remembers of no object what it is.
func (c *connection) unseen() (objstore.Store, error) {
	if s, ok := c.Store.(interface {
		Unseen() (objstore.Store, error)
	}); ok {
		return s.Unseen()
	}
	return c.Store, nil
}

func newVerifier(store objstore.Store, jobs int, tell func(verifyReport) error) *verifier {
	v := &verifier{store: store, jobs: jobs, tell: tell, damaged: make(chan damagedObject)}
	v.buffers.New = func() any { return new([verifyBuffer]byte) }
	return v
}

// run reads the trees and returns when all is told. The error is why not all was read.
func (v *verifier) run(ctx context.Context, trees []source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	walked := make(chan error, 1)
	go func() { walked <- v.walk(ctx, trees) }()
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	var told verifyReport
	for {
		var found []damagedObject
		var err error
		over := false
		select {
		case d := <-v.damaged:
			found = append(found, d)
		case <-tick.C:
		case err = <-walked:
			over = true
		}
		now := verifyReport{Objects: v.objects.Load(), Bytes: v.bytes.Load(), Gone: v.gone.Load()}
		news := verifyReport{Objects: now.Objects - told.Objects, Bytes: now.Bytes - told.Bytes, Gone: now.Gone - told.Gone, Damaged: found}
		told = now
		if terr := v.tell(news); terr != nil {
			cancel(terr) // what is still found is told to nobody
		}
		if over {
			return cmp.Or(context.Cause(ctx), err)
		}
	}
}

// walk reads the objects of all trees, and ends with the first that cannot be read for
// reasons that are not its own.
func (v *verifier) walk(ctx context.Context, trees []source) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(1 + v.jobs)
	g.Go(func() error {
		for _, tree := range trees {
			err := v.list(ctx, g, tree)
			if errors.Is(err, objstore.NotExist) && len(trees) > 1 {
				continue // a bucket that was removed meanwhile
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

// list has g read the objects of a tree: all below its prefix, and the object of that name.
func (v *verifier) list(ctx context.Context, g *errgroup.Group, tree source) error {
	b, err := v.store.Open(ctx, tree.Bucket)
	if err != nil {
		return err
	}
	queries := []objstore.Query{{}}
	if tree.Prefix != "" {
		// The first key that begins so is the shortest.
		queries = []objstore.Query{{Prefix: tree.Prefix, Limit: 1}, {Prefix: tree.Prefix + "/"}}
	}
	for _, q := range queries {
		for e, err := range b.List(ctx, q) {
			if err == nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				return err
			}
			if q.Limit == 1 && e.Key != tree.Prefix {
				continue
			}
			v.listed.Add(1)
			if strings.HasSuffix(e.Key, "/") {
				continue // a directory's marker
			}
			g.Go(func() error { return v.check(ctx, b, e.Key) })
		}
	}
	return nil
}

// check reads an object, and counts or tells what became of it.
func (v *verifier) check(ctx context.Context, b objstore.Bucket, key string) error {
	err := v.read(ctx, b, key)
	for try := 1; errors.Is(err, objstore.Stale) && try < changedTries; try++ {
		err = v.read(ctx, b, key)
	}
	switch objstore.KindOf(err) {
	case objstore.NotExist, objstore.Stale:
		v.gone.Add(1)
		return nil
	case objstore.Integrity, objstore.Unsupported, objstore.KeyUnavailable, objstore.Permission, objstore.Archived:
		v.objects.Add(1)
		select {
		case v.damaged <- damagedObject{b.Name(), key, err.Error()}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err == nil {
		v.objects.Add(1)
	}
	return err
}

// read reads all of an object. Its version is not named: what is remembered of one must
// not answer.
func (v *verifier) read(ctx context.Context, b objstore.Bucket, key string) error {
	body, _, err := b.Get(ctx, objstore.Ref{Key: key}, objstore.GetOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	p := v.buffers.Get().(*[verifyBuffer]byte)
	defer v.buffers.Put(p)
	for {
		n, err := body.Read(p[:])
		v.bytes.Add(int64(n))
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
