package fs

import (
	"context"
	"sync"
)

// gate keeps changes out of a directory while it is being renamed. Renaming a
// directory copies its objects one by one; a file that was committed, made or
// removed below it in between would be lost, or come back.
//
// A change enters the gate at the directories whose names or files it
// touches, before it takes a file's turn, and enters once: whoever is inside
// never waits at the gate, so that a rename which waits for all who are
// inside comes to its end.
type gate struct {
	tree *sync.RWMutex // filesystem.tree, taken under mu

	mu     sync.Mutex
	left   *sync.Cond // somebody left
	active map[*dir]int
	moving map[*dir]chan struct{} // closed when the rename is over
}

func newGate(tree *sync.RWMutex) *gate {
	g := &gate{tree: tree, active: map[*dir]int{}, moving: map[*dir]chan struct{}{}}
	g.left = sync.NewCond(&g.mu)
	return g
}

// enter waits until none of the directories, nor one above, is being renamed.
// The caller calls leave when its change is in the store.
func (g *gate) enter(ctx context.Context, dirs ...*dir) (leave func(), err error) {
	for {
		g.mu.Lock()
		wait := g.blockedLocked(dirs)
		if wait == nil {
			for _, d := range dirs {
				g.active[d]++
			}
			g.mu.Unlock()
			return func() { g.leave(dirs) }, nil
		}
		g.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (g *gate) leave(dirs []*dir) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range dirs {
		if g.active[d]--; g.active[d] == 0 {
			delete(g.active, d)
		}
	}
	g.left.Broadcast()
}

// move enters at the parents and closes the gate of moved, after all who are
// inside below it have left.
func (g *gate) move(ctx context.Context, moved *dir, parents ...*dir) (done func(), err error) {
	leave, err := g.enter(ctx, parents...)
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	g.mu.Lock()
	g.moving[moved] = over
	for g.busyBelowLocked(moved) {
		g.left.Wait()
	}
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		delete(g.moving, moved)
		g.mu.Unlock()
		close(over)
		leave()
	}, nil
}

// blockedLocked returns what to wait for, nil when the way is free.
func (g *gate) blockedLocked(dirs []*dir) chan struct{} {
	if len(g.moving) == 0 {
		return nil
	}
	g.tree.RLock()
	defer g.tree.RUnlock()
	for _, d := range dirs {
		for ; d != nil; d = d.place.parent {
			if over := g.moving[d]; over != nil {
				return over
			}
		}
	}
	return nil
}

func (g *gate) busyBelowLocked(moved *dir) bool {
	g.tree.RLock()
	defer g.tree.RUnlock()
	for d := range g.active {
		for ; d != nil; d = d.place.parent {
			if d == moved {
				return true
			}
		}
	}
	return false
}
