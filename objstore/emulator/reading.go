package emulator

import (
	"io"
	"sync"
)

// pins counts the readers of segments, so that the files of a version which is
// replaced or deleted stay until its last reader is done. They are counted by
// the first segment of a version. The zero value is ready.
type pins struct {
	mu     sync.Mutex
	counts map[string]int
	doomed map[string][]segment
}

func (p *pins) add(segs []segment) {
	if len(segs) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.counts == nil {
		p.counts, p.doomed = map[string]int{}, map[string][]segment{}
	}
	p.counts[segs[0].ID]++
}

// drop ends one reader and returns the segments that are to be removed now.
func (p *pins) drop(segs []segment) []segment {
	if len(segs) == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	id := segs[0].ID
	if p.counts[id]--; p.counts[id] > 0 {
		return nil
	}
	delete(p.counts, id)
	dead := p.doomed[id]
	delete(p.doomed, id)
	return dead
}

// doom tells whether segments may be removed at once; else their last reader
// is given them.
func (p *pins) doom(segs []segment) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(segs) == 0 || p.counts[segs[0].ID] == 0 {
		return true
	}
	p.doomed[segs[0].ID] = segs
	return false
}

// reader is an object version that is being read. Its bytes stay readable
// after the version is replaced or deleted. Not safe for concurrent use.
type reader struct {
	b *bucket
	v *version
	// root opens an encrypted version; whoever reads the bytes sets it.
	root *rootKey
}

// open finds a version as lookup does and keeps its bytes until Close.
func (b *bucket) open(key, versionID string) (*reader, error) {
	// Under one lock: a version that is in the index has its files.
	b.mu.RLock()
	defer b.mu.RUnlock()
	v, err := b.lookupLocked(key, versionID)
	if err != nil {
		return nil, err
	}
	b.pins.add(v.Segments)
	return &reader{b: b, v: v}, nil
}

// Close ends the reading.
func (r *reader) Close() {
	r.b.vault.remove(r.b.dataDir(), r.b.pins.drop(r.v.Segments))
}

// writeRange writes n bytes from off to w.
func (r *reader) writeRange(w io.Writer, off, n int64) error {
	return r.b.vault.writeRange(w, r.b.dataDir(), r.v.Segments, r.root, off, n)
}
