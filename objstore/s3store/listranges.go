package s3store

import (
	"context"
	"sort"
	"sync"
	"time"

	"coffer/objstore"
)

// A page tells where the next begins, so pages come one after the other: at 50 ms
// each, 1,000,000 keys take 50 s. Keys can also be listed from any string on. Where
// pages are slow, and keys are evenly spread as far as seen, it is guessed where
// those some pages ahead will be, and ranges between such strings are listed at the
// same time:
//
//	         last
//	delivered | range   | range   | range   | range   | ...
//	          |#########|####     |######   |##       |        # listed
//	          ^delivered next
//
// A guess that is wrong costs time and nothing else: all ranges together are all
// keys behind last, whatever is in them. After a bad one, or an error, or where
// guesses end, keys are listed one page after the other again, to learn how they are
// spread there.
const (
	// rangesAhead is how many ranges are listed at a time.
	rangesAhead = 5
	// rangePages is how many pages a range is meant to have. The last is cut
	// off where the next range begins, half of it as a rule.
	rangePages = 3
	// rangeTooLong is how many pages tell that it was a bad guess.
	rangeTooLong = 3 * rangePages
	// rangesTooShort is how many empty ranges in a row do.
	rangesTooShort = 3
	// slowPage is how long a page takes from a store that is far away: one
	// beside us has other things to do in that time.
	slowPage = 20 * time.Millisecond
	// badSplits is how often it may go wrong in one listing.
	badSplits = 5
)

// objstore.ListAhead is a promise of all pages that can be listed and not consumed:
// of each range those in its channel, one in hand and one on its way.
const _ = uint(objstore.ListAhead - rangesAhead*(rangePages+2)*listPage)

// splitting finds out whether a listing is to be split.
type splitting struct {
	q      objstore.Query
	never  bool
	slow   int      // pages in a row that were
	sample []string // the keys on them
	guess  *guess   // what follows, once it is to be split
}

func newSplitting(q objstore.Query, bad int) *splitting {
	return &splitting{q: q, never: q.Limit > 0 || len(q.Delimiter) > 1 || bad >= badSplits}
}

// goesOn notes a page that more pages follow, and reports whether these are to be
// listed one after the other.
func (s *splitting) goesOn(page []objstore.Entry, took time.Duration) bool {
	if s.never || len(page) == 0 {
		return true
	}
	if took < slowPage {
		s.slow, s.sample = 0, nil
		return true
	}
	s.slow++
	for _, e := range page {
		s.sample = append(s.sample, e.Key)
	}
	if s.slow < 2 {
		return true
	}
	s.guess = newGuess(s.q.Prefix, s.q.Delimiter, s.sample, rangePages*len(s.sample)/s.slow)
	s.slow, s.sample = 0, nil
	return s.guess == nil
}

// keyRange is a part of a listing: the keys behind after, up to upTo.
type keyRange struct {
	after string
	upTo  string
	pages chan []objstore.Entry
	// end tells that nothing follows the range, err that not all of it is in
	// pages. They are set when pages is closed.
	end bool
	err error
}

// outcome is what became of a splitting.
type outcome int

const (
	allListed outcome = iota // or as much as deliver wanted
	guessed                  // as far as guesses go
	badGuess                 // up to some place
)

// listRanges delivers the keys behind last, in ranges that are listed at a time.
func (b *bucket) listRanges(ctx context.Context, q objstore.Query, last string, g *guess, deliver func([]objstore.Entry) bool) outcome {
	ctx, cancel := context.WithCancel(ctx)
	var listers sync.WaitGroup
	defer listers.Wait()
	defer cancel()
	var queue []*keyRange
	for empty, more := 0, true; ; {
		for more && len(queue) < rangesAhead {
			r := &keyRange{after: last, upTo: g.next(last), pages: make(chan []objstore.Entry, rangePages)}
			if more = r.upTo != ""; more {
				last = r.upTo
				queue = append(queue, r)
				listers.Go(func() { b.listRange(ctx, q, r) })
			}
		}
		if len(queue) == 0 {
			return guessed
		}
		r := queue[0]
		queue = queue[1:]
		pages := 0
		for page := range r.pages {
			if !deliver(page) {
				return allListed
			}
			if pages++; pages >= rangeTooLong {
				return badGuess
			}
		}
		if empty++; pages > 0 {
			empty = 0
		}
		switch {
		case r.err != nil:
			return badGuess
		case r.end:
			return allListed
		case empty >= rangesTooShort:
			return badGuess
		}
	}
}

// listRange lists r.
func (b *bucket) listRange(ctx context.Context, q objstore.Query, r *keyRange) {
	defer close(r.pages)
	r.end = true
	for page, err := range b.pages(ctx, q, r.after, 0, func(page []objstore.Entry, _ time.Duration) bool {
		return len(page) == 0 || page[len(page)-1].Key <= r.upTo
	}) {
		if err != nil {
			r.err = err
			return
		}
		if n := sort.Search(len(page), func(i int) bool { return page[i].Key > r.upTo }); n < len(page) {
			page, r.end = page[:n], false
		}
		if len(page) == 0 {
			continue
		}
		select {
		case r.pages <- page:
		case <-ctx.Done():
			r.err = ctx.Err()
			return
		}
	}
}
