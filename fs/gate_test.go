package fs

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
)

// gateTree returns a gate and directories: a holds b, b holds c; x apart.
func gateTree() (g *gate, a, b, c, x *dir) {
	f := &filesystem{}
	a, x = &dir{fsys: f}, &dir{fsys: f}
	b = &dir{fsys: f, place: place{a, "b"}}
	c = &dir{fsys: f, place: place{b, "c"}}
	return newGate(&f.tree), a, b, c, x
}

func TestGateKeepsChangesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, a, b, c, x := gateTree()
		ctx := t.Context()
		inside, err := g.enter(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		var moving, entered atomic.Bool
		var done func()
		go func() {
			done, _ = g.move(ctx, b, a)
			moving.Store(true)
		}()
		synctest.Wait()
		if moving.Load() {
			t.Fatal("the rename began while a change was under way below")
		}
		go func() {
			leave, err := g.enter(ctx, c)
			if err != nil {
				t.Error(err)
				return
			}
			entered.Store(true)
			leave()
		}()
		synctest.Wait()
		if entered.Load() {
			t.Fatal("a change began below a directory whose rename waits")
		}
		if leave, err := g.enter(ctx, x); err != nil {
			t.Error(err)
		} else {
			leave() // elsewhere all goes on
		}
		inside()
		synctest.Wait()
		if !moving.Load() || entered.Load() {
			t.Fatalf("after the last change left: moving %v, entered %v", moving.Load(), entered.Load())
		}
		done()
		synctest.Wait()
		if !entered.Load() {
			t.Error("the rename is over and the change still waits")
		}
	})
}

func TestGateWaitCanBeCancelled(t *testing.T) {
	g, a, b, c, _ := gateTree()
	done, err := g.move(t.Context(), b, a)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.enter(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("enter = %v, want canceled", err)
	}
}

func TestInoIsStableAndUnique(t *testing.T) {
	if a, b := inoOf("bucket", "key"), inoOf("bucket", "key"); a != b {
		t.Error("two numbers for one key")
	}
	if inoOf("ab", "c") == inoOf("a", "bc") {
		t.Error("bucket and key run together")
	}
	f := newFilesystem(Config{}.withDefaults())
	defer f.close()
	first := f.newIno("b", "k")
	top := &gofuse.Inode{}
	gofuse.NewNodeFS(top, &gofuse.Options{})
	inode := func() *gofuse.Inode {
		return top.NewInode(t.Context(), &gofuse.Inode{}, gofuse.StableAttr{Ino: first})
	}
	holder, other := inode(), inode()
	f.keepIno(holder)
	f.keepIno(other)
	second := f.newIno("b", "k")
	if second == first || second < 1<<63 {
		t.Errorf("a new file got %d while another inode holds %d", second, first)
	}
	f.freeIno(other) // not the one that holds it
	if f.newIno("b", "k") == first {
		t.Error("the number was given back by an inode that does not hold it")
	}
	f.freeIno(holder)
	if got := f.newIno("b", "k"); got != first {
		t.Errorf("the number is not free again: %d, want %d", got, first)
	}
}

func TestErrnoTableIsComplete(t *testing.T) {
	for k, e := range errnos {
		if got := toErrno(k); got != e || e == 0 {
			t.Errorf("%v: %v, want %v", k, got, e)
		}
	}
	if toErrno(nil) != 0 {
		t.Error("nil is an error")
	}
	if len(errnos) != 22 {
		t.Errorf("%d kinds are mapped; objstore has 22", len(errnos))
	}
}
