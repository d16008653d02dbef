package e2e

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// windows finds plaintext where none may be.
//
// It remembers 16 bytes of the plaintext at each multiple of 16, and looks for
// them at every offset of what it scans. Every run of 31 bytes of the
// plaintext holds one of the remembered windows whole, so a scan without a hit
// proves that no 32 bytes of it are there, wherever they begin. A chance hit
// has a probability of about 2^-128 a pair.
type windows struct {
	all    [][windowBytes]byte // sorted once scanning begins
	filter []uint64            // bitmap by a hash of each half
	sorted bool
	piece  int // bytes that are read at a time; 0 is 4 MiB
}

const (
	windowBytes = 16
	filterBits  = 28 // 32 MiB: with five million windows 1 of 700 offsets gets past it
)

// add remembers the windows of data that keep accepts; nil accepts all.
func (w *windows) add(data []byte, keep func([]byte) bool) {
	if w.filter == nil {
		w.filter = make([]uint64, 1<<(filterBits-6))
	}
	for ; len(data) >= windowBytes; data = data[windowBytes:] {
		if keep != nil && !keep(data[:windowBytes]) {
			continue
		}
		w.all = append(w.all, [windowBytes]byte(data))
		for half := range 2 {
			h := windowHash(binary.LittleEndian.Uint64(data[8*half:]), uint64(half))
			w.filter[h>>6] |= 1 << (h & 63)
		}
	}
	w.sorted = false
}

func windowHash(v, half uint64) uint64 {
	return (v ^ half) * 0x9E3779B97F4A7C15 >> (64 - filterBits)
}

// find returns the remembered windows that occur in data. The loop looks at
// every byte of gigabytes and shares nothing, so the race detector is left out.
//
//go:norace
func (w *windows) find(data []byte, found map[[windowBytes]byte]bool) {
	if !w.sorted {
		slices.SortFunc(w.all, compareWindows)
		w.sorted = true
	}
	filter := w.filter
	for i := 0; i+windowBytes <= len(data); i++ {
		h := windowHash(binary.LittleEndian.Uint64(data[i:]), 0)
		if filter[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		h = windowHash(binary.LittleEndian.Uint64(data[i+8:]), 1)
		if filter[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		v := [windowBytes]byte(data[i:])
		if _, ok := slices.BinarySearchFunc(w.all, v, compareWindows); ok {
			found[v] = true
		}
	}
}

func compareWindows(a, b [windowBytes]byte) int { return bytes.Compare(a[:], b[:]) }

// findIn scans a stream, in pieces that overlap so that no window is cut.
func (w *windows) findIn(r io.Reader, found map[[windowBytes]byte]bool) (n int64, err error) {
	buf := make([]byte, cmp.Or(w.piece, 4<<20))
	kept := 0
	for {
		m, err := io.ReadFull(r, buf[kept:])
		n += int64(m)
		w.find(buf[:kept+m], found)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		kept = copy(buf, buf[len(buf)-windowBytes+1:])
	}
}

// scan looks through every regular file below dir. It returns the windows that
// were found, one file that holds any, and how many bytes were scanned.
func (w *windows) scan(t testing.TB, dir string) (found map[[windowBytes]byte]bool, where string, n int64) {
	t.Helper()
	found = map[[windowBytes]byte]bool{}
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a server may still be tidying up
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		before := len(found)
		m, err := w.findIn(f, found)
		n += m
		if len(found) > before {
			where = p
		}
		return err
	}))
	return found, where, n
}

// wantNone fails when plaintext lies below dir.
func (w *windows) wantNone(t testing.TB, what, dir string) {
	t.Helper()
	found, where, n := w.scan(t, dir)
	if len(found) > 0 {
		t.Errorf("%s: %d windows of plaintext are at rest, for example in %s", what, len(found), where)
	}
	t.Logf("%s: %d bytes scanned for %d windows", what, n, len(w.all))
}

// TestWindowsFindPlaintext proves the method: 32 bytes of plaintext, from any
// offset, are found wherever they lie, also across the scanner's pieces; other
// data, and 15 bytes of it, are no hit.
func TestWindowsFindPlaintext(t *testing.T) {
	const piece, size = 1 << 10, 3<<10 + 7
	plain, other := random(t, 1<<20), random(t, size)
	w := windows{piece: piece}
	w.add(plain, nil)
	hits := func(data []byte) int {
		found := map[[windowBytes]byte]bool{}
		_, err := w.findIn(bytes.NewReader(data), found)
		must(t, err)
		return len(found)
	}
	if n := hits(other); n != 0 {
		t.Fatalf("%d windows found in other data", n)
	}
	for from := range windowBytes + 1 {
		for at := range size - 32 {
			planted := bytes.Clone(other)
			copy(planted[at:], plain[from:from+32])
			if hits(planted) == 0 {
				t.Fatalf("32 bytes from %d planted at %d are not found", from, at)
			}
		}
	}
	if n := hits(plain[1:windowBytes]); n != 0 {
		t.Errorf("15 bytes pass for a window of 16")
	}
}
