package e2e

import (
	"bytes"
	"crypto/sha256"
	mathrand "math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// copyRange is copy_file_range(2), until n bytes are copied or the end is met.
func copyRange(t *testing.T, in *os.File, offIn int64, out *os.File, offOut int64, n int) int {
	t.Helper()
	done := 0
	for done < n {
		m, err := unix.CopyFileRange(int(in.Fd()), &offIn, int(out.Fd()), &offOut, n-done, 0)
		must(t, err)
		if m == 0 {
			break
		}
		done += m
	}
	return done
}

// TestCopyMovesNothing: cp of a large file on the mount, to another bucket too,
// is the store's work.
func TestCopyMovesNothing(t *testing.T) {
	m, s := bucketMount(t)
	must(t, os.Mkdir(m.path("other-bucket"), 0o755))
	other := client(t, s.Env())
	data := random(t, 40<<20+77)
	must(t, os.WriteFile(m.path("bucket", "src"), data, 0o640))
	for _, to := range []string{"bucket", "other-bucket"} {
		write(t, m.path(to, "over"), "older content")
		for _, name := range []string{"copy", "over"} {
			s.ResetRequests()
			shell(t, nil, `cp -p "$SRC" "$DST"`, m.path("bucket", "src"), m.path(to, name))
			moved := int64(0)
			for _, r := range s.Requests() {
				moved += r.BodyBytes + r.RespBytes
			}
			if moved > 100<<10 {
				t.Errorf("cp to %s/%s moved %d bytes", to, name, moved)
			}
			if sum, err := other.sum(to, name); err != nil || sum != sha256.Sum256(data) {
				t.Errorf("%s/%s is not a copy (%v)", to, name, err)
			}
			if got := xattr(t, m.path(to, name), "user.s3.encryption"); got != "SSE-S3" {
				t.Errorf("user.s3.encryption is %q", got)
			}
		}
	}
}

// TestCopyFileRange copies short ranges of all kinds, with writes in between,
// and compares with what a program would have copied itself.
func TestCopyFileRange(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, s.Env())
	const size = 3 << 20
	src := random(t, size)
	must(t, os.WriteFile(m.path("bucket", "src"), src, 0o644))
	in, err := os.Open(m.path("bucket", "src"))
	must(t, err)
	defer in.Close()
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	rng := mathrand.New(mathrand.NewPCG(seed, 0))
	for round := range 12 {
		// In turns: a new file, an empty one, one with content of its own.
		name := m.path("bucket", "dst")
		var model []byte
		switch round % 3 {
		case 0:
			os.Remove(name)
		case 1:
			must(t, os.WriteFile(name, nil, 0o644))
		case 2:
			model = bytes.Clone(src[:rng.IntN(size)])
			must(t, os.WriteFile(name, model, 0o644))
		}
		out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		must(t, err)
		for range 8 {
			off, n := rng.IntN(size), rng.IntN(size/2)
			piece := src[rng.IntN(size):]
			from := int64(size - len(piece))
			piece = piece[:min(n, len(piece))]
			switch rng.IntN(4) {
			case 0:
				piece = random(t, n/100)
				_, err := out.WriteAt(piece, int64(off))
				must(t, err)
			default:
				if got := copyRange(t, in, from, out, int64(off), n); got != len(piece) {
					t.Fatalf("%d bytes copied from %d, want %d", got, from, len(piece))
				}
			}
			if end := off + len(piece); end > len(model) && len(piece) > 0 {
				model = append(model, make([]byte, end-len(model))...)
			}
			copy(model[min(off, len(model)):], piece)
			if rng.IntN(3) == 0 {
				got := make([]byte, len(model)+1)
				k, _ := out.ReadAt(got, 0)
				if !bytes.Equal(got[:k], model) {
					t.Fatalf("round %d: the file reads as something else before the commit", round)
				}
			}
			if rng.IntN(5) == 0 {
				must(t, out.Sync())
			}
		}
		must(t, out.Close())
		if got := other.get(t, "bucket", "dst"); got != string(model) {
			t.Fatalf("round %d: the object is not the file: %d bytes, want %d", round, len(got), len(model))
		}
		want(t, name, string(model))
	}
}

// TestCopyInPieces appends long ranges, which the store copies, and bytes of its
// own to a file.
func TestCopyInPieces(t *testing.T) {
	m, s := bucketMount(t)
	const mib = 1 << 20
	src := random(t, 45*mib)
	must(t, os.WriteFile(m.path("bucket", "src"), src, 0o644))
	in, err := os.Open(m.path("bucket", "src"))
	must(t, err)
	defer in.Close()
	for name, pieces := range map[string][][2]int{ // offset and length, own bytes with a negative offset
		"whole":          {{0, 45 * mib}},
		"middle":         {{5, 30*mib + 3}},
		"head first":     {{-1, 1000}, {7, 20 * mib}},
		"long head":      {{-1, 6 * mib}, {7, 20 * mib}},
		"with bytes":     {{0, 11 * mib}, {-1, 100}, {30 * mib, 12 * mib}, {-1, 7 * mib}, {mib, 10 * mib}},
		"then short":     {{0, 11 * mib}, {3, 100}, {-1, 5}},
		"twice the same": {{0, 12 * mib}, {0, 12 * mib}},
		"beyond the end": {{40 * mib, 50 * mib}, {25 * mib, 90 * mib}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := os.Create(m.path("bucket", "dst"))
			must(t, err)
			var model []byte
			for _, p := range pieces {
				if p[0] < 0 {
					own := random(t, p[1])
					_, err := out.WriteAt(own, int64(len(model)))
					must(t, err)
					model = append(model, own...)
					continue
				}
				piece := src[p[0]:min(p[0]+p[1], len(src))]
				if got := copyRange(t, in, int64(p[0]), out, int64(len(model)), p[1]); got != len(piece) {
					t.Fatalf("%d bytes copied, want %d", got, len(piece))
				}
				model = append(model, piece...)
			}
			must(t, out.Close())
			if sum, err := client(t, s.Env()).sum("bucket", "dst"); err != nil || sum != sha256.Sum256(model) {
				t.Errorf("the object is not the file (%v)", err)
			}
			want(t, m.path("bucket", "dst"), string(model))
		})
	}
}

// TestCopyOfWhatChanges: bytes that are not in the store yet are copied all the
// same, and a copy has nothing to do with its source any more, closed or not.
func TestCopyOfWhatChanges(t *testing.T) {
	m, s := bucketMount(t)
	other := client(t, s.Env())
	data := random(t, 12<<20)
	in, err := os.OpenFile(m.path("bucket", "src"), os.O_RDWR|os.O_CREATE, 0o644)
	must(t, err)
	_, err = in.Write(data)
	must(t, err)
	out, err := os.Create(m.path("bucket", "dst"))
	must(t, err)
	copyRange(t, in, 0, out, 0, len(data))
	must(t, out.Close())
	must(t, in.Close())
	if got := other.get(t, "bucket", "dst"); got != string(data) {
		t.Errorf("the copy has %d bytes, want %d", len(got), len(data))
	}
	for what, change := range map[string]func(src string){
		"removed":  func(src string) { must(t, os.Remove(m.path("bucket", src))) },
		"renamed":  func(src string) { must(t, os.Rename(m.path("bucket", src), m.path("bucket", "elsewhere"))) },
		"changed":  func(src string) { write(t, m.path("bucket", src), "changed") },
		"chmod":    func(src string) { must(t, os.Chmod(m.path("bucket", src), 0o600)) },
		"replaced": func(src string) { other.put(t, "bucket", src, "replaced") },
	} {
		t.Run(what, func(t *testing.T) {
			src := "src-" + what
			must(t, os.WriteFile(m.path("bucket", src), data, 0o644))
			in, err := os.Open(m.path("bucket", src))
			must(t, err)
			out, err := os.Create(m.path("bucket", "dst"))
			must(t, err)
			copyRange(t, in, 0, out, 0, len(data))
			must(t, in.Close())
			change(src)
			must(t, out.Close())
			if got := other.get(t, "bucket", "dst"); got != string(data) {
				t.Errorf("the copy has %d bytes, want %d", len(got), len(data))
			}
		})
	}
}
