package fs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"coffer/objstore"
)

func TestReadAheadOfHeads(t *testing.T) {
	var r readAhead
	for i := range 200 {
		r.add(fmt.Sprint(i))
	}
	span := func(names []string) string {
		if len(names) == 0 {
			return ""
		}
		return names[0] + "-" + names[len(names)-1]
	}
	for _, step := range []struct {
		pos  int
		want string
	}{
		{0, ""},        // one look-up is no pattern
		{1, "2-65"},    // a second in a row opens the window
		{2, "66-66"},   // which moves
		{3, "67-67"},   //
		{90, ""},       // elsewhere
		{91, "92-155"}, // and in order again
		{10, ""},
		{11, ""}, // all of these were asked for
		{198, ""},
		{199, ""}, // nothing is left
	} {
		if got := span(r.lookedUp(step.pos)); got != step.want {
			t.Errorf("looked up %d: sent %q, want %q", step.pos, got, step.want)
		}
	}
}

// waitingBucket answers a HEAD after a second, unless who asks gives up.
type waitingBucket struct {
	namedBucket
	asked int
}

func (b *waitingBucket) Head(ctx context.Context, r objstore.Ref) (objstore.Object, error) {
	b.asked++
	select {
	case <-time.After(time.Second):
		return objstore.Object{Entry: objstore.Entry{Key: r.Key}}, nil
	case <-ctx.Done():
		return objstore.Object{}, ctx.Err()
	}
}

// TestOneAskerGivesUp: the others, who wait for the same answer, get it.
func TestOneAskerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, b := newHeads(), &waitingBucket{}
		first, giveUp := context.WithCancel(t.Context())
		go func() {
			if _, err := h.ask(first, b, "k"); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up: %v", err)
			}
		}()
		synctest.Wait()
		time.AfterFunc(time.Millisecond, giveUp)
		if o, err := h.ask(t.Context(), b, "k"); err != nil || o.Key != "k" {
			t.Errorf("who waits: %v, %v", o, err)
		}
		if b.asked != 1 {
			t.Errorf("%d requests", b.asked)
		}
	})
}

func TestHeadsRemembersVersions(t *testing.T) {
	h := newHeads()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := objstore.Object{Entry: objstore.Entry{Key: "k", ETag: "1", StoredSize: 3, LastModified: at}}
	h.remember("b", o)
	e := o.Entry
	e.LastModified = at.Add(250 * time.Millisecond) // a listing has milliseconds
	if _, ok := h.recall("b", e); !ok {
		t.Error("the same version is not recalled")
	}
	for name, other := range map[string]objstore.Entry{
		"ETag": {Key: "k", ETag: "2", StoredSize: 3, LastModified: at},
		"size": {Key: "k", ETag: "1", StoredSize: 4, LastModified: at},
		"time": {Key: "k", ETag: "1", StoredSize: 3, LastModified: at.Add(time.Second)},
		"key":  {Key: "x", ETag: "1", StoredSize: 3, LastModified: at},
	} {
		if _, ok := h.recall("b", other); ok {
			t.Errorf("another %s is recalled", name)
		}
	}
	h.forget("b", "k")
	if _, ok := h.recall("b", e); ok {
		t.Error("recalled after it was forgotten")
	}
}

func TestHeadsStaysBounded(t *testing.T) {
	h := newHeads()
	h.most = 1000
	hot := objstore.Object{Entry: objstore.Entry{Key: "hot"}}
	h.remember("b", hot)
	for i := range 5 * h.most {
		o := objstore.Object{Entry: objstore.Entry{Key: fmt.Sprint(i)}}
		o.Headers.ContentType = fmt.Sprint("not common ", i)
		h.remember("b", o)
		if _, ok := h.recall("b", hot.Entry); !ok {
			t.Fatal("what is used all the time was dropped")
		}
		if n := len(h.young) + len(h.old); n > h.most {
			t.Fatalf("%d results are kept", n)
		}
		if n := len(h.common); n > commonMax {
			t.Fatalf("%d texts are taken for common", n)
		}
	}
}
