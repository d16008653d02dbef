package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// putMany stores n files of i bytes each under dir, by another client.
func putMany(t testing.TB, m *mount, dir string, n int) {
	t.Helper()
	other := client(t, m.env)
	var g sync.WaitGroup
	for worker := range 8 {
		g.Go(func() {
			for i := worker; i < n; i += 8 {
				other.put(t, "bucket", fmt.Sprintf("%s/file-%05d", dir, i), strings.Repeat("x", i))
			}
		})
	}
	g.Wait()
}

// getdents reads entries of an open directory into a buffer of so many bytes, and
// returns their names and the offset behind each.
func getdents(t testing.TB, f *os.File, size int) (names []string, offs []int64) {
	t.Helper()
	buf := make([]byte, size)
	n, err := unix.Getdents(int(f.Fd()), buf)
	must(t, err)
	for buf = buf[:n]; len(buf) > 0; {
		reclen := binary.NativeEndian.Uint16(buf[16:])
		name, _, _ := strings.Cut(string(buf[19:reclen]), "\x00")
		names = append(names, name)
		offs = append(offs, int64(binary.NativeEndian.Uint64(buf[8:])))
		buf = buf[reclen:]
	}
	return names, offs
}

// TestReadingDirectoriesInPieces: no name is lost or told twice, however little is
// read at a time, and wherever reading goes on from.
func TestReadingDirectoriesInPieces(t *testing.T) {
	const files = 700
	m, _ := bucketMount(t)
	putMany(t, m, "dir", files)
	for _, attributes := range []string{"list", "full", "list, for ever"} {
		args := []string{"--attributes", attributes[:4]}
		if attributes[4:] != "" {
			args = append(args, "--read-only", "--metadata-ttl", "indefinite")
		}
		m.stop()
		m.start(args...)
		want := []string{".", ".."}
		for i := range files {
			want = append(want, fmt.Sprintf("file-%05d", i))
		}
		f, err := os.Open(m.path("bucket", "dir"))
		must(t, err)
		rnd := rand.New(rand.NewPCG(1, 2))
		offs := []int64{0} // of each entry, as far as known
		at := 0            // how many entries are before the place that is read next
		for step := range 500 {
			names, behind := getdents(t, f, 280<<rnd.IntN(9))
			if len(names) == 0 && at < len(want) {
				t.Fatalf("%s, step %d: the end after %d entries", attributes, step, at)
			}
			for i, name := range names {
				if at >= len(want) || name != want[at] {
					t.Fatalf("%s, step %d: %q is entry %d", attributes, step, name, at)
				}
				if at++; len(offs) == at {
					offs = append(offs, behind[i])
				}
			}
			switch rnd.IntN(10) {
			case 0: // rewinddir
				at = 0
				_, err = f.Seek(0, io.SeekStart)
			case 1, 2, 3: // seekdir, to a place not far away as a rule
				at = rnd.IntN(len(offs))
				if rnd.IntN(4) > 0 {
					at = max(0, len(offs)-1-rnd.IntN(40))
				}
				_, err = f.Seek(offs[at], io.SeekStart)
			case 4:
				if len(names) > 0 && names[0][0] == 'f' {
					_, err = os.Lstat(m.path("bucket", "dir", names[0]))
				}
			}
			must(t, err)
		}
		f.Close()
	}
}

// TestReadingDirectoriesThatChange: names that are there all the time are told
// once each, whatever comes and goes beside them.
func TestReadingDirectoriesThatChange(t *testing.T) {
	m, _ := bucketMount(t)
	const files = 300
	putMany(t, m, "dir", files)
	rnd := rand.New(rand.NewPCG(3, 4))
	for round := range 5 {
		f, err := os.Open(m.path("bucket", "dir"))
		must(t, err)
		seen := map[string]int{}
		for i := 0; ; i++ {
			names, _ := getdents(t, f, 512)
			if len(names) == 0 {
				break
			}
			for _, nm := range names {
				seen[nm]++
			}
			p := m.path("bucket", "dir", fmt.Sprintf("file-%05d-%d", rnd.IntN(files), round))
			write(t, p, "new")
			if i%3 == 0 {
				must(t, os.Remove(p))
			}
			if _, err := os.Lstat(m.path("bucket", "dir", names[len(names)-1])); err != nil && seen[names[len(names)-1]] > 0 && len(names[len(names)-1]) == len("file-00000") {
				t.Error(err)
			}
		}
		f.Close()
		for i := range files {
			if nm := fmt.Sprintf("file-%05d", i); seen[nm] != 1 {
				t.Errorf("round %d: %q was told %d times", round, nm, seen[nm])
			}
		}
		for nm, n := range seen {
			if n > 1 {
				t.Errorf("round %d: %q was told %d times", round, nm, n)
			}
		}
	}
}

// TestMixedReadersOfADirectory: programs that want attributes and others read one
// directory at a time, and each finds all of it.
func TestMixedReadersOfADirectory(t *testing.T) {
	const files = 5000
	m, _ := bucketMount(t)
	putMany(t, m, "dir", files)
	dir := m.path("bucket", "dir")
	for _, attributes := range []string{"list", "full"} {
		m.stop()
		m.start("--attributes", attributes)
		var g sync.WaitGroup
		for _, c := range []struct {
			args  []string
			lines int
		}{
			{[]string{"ls", "-f", dir}, files + 2},
			{[]string{"ls", "-l", dir}, files + 1},
			{[]string{"find", dir}, files + 1},
			{[]string{"find", dir, "-type", "f", "-size", "-2501c"}, 2501},
			{[]string{"sh", "-c", "ls -f $0; ls -l $0; find $0 -name 'file-*'", dir}, 3*files + 3},
		} {
			g.Go(func() {
				for range 2 {
					out, err := exec.Command(c.args[0], c.args[1:]...).CombinedOutput()
					if n := bytes.Count(out, []byte("\n")); err != nil || n != c.lines {
						t.Errorf("%s: %q: %v, %d lines, want %d\n%.300s", attributes, c.args, err, n, c.lines, out)
					}
				}
			})
		}
		g.Wait()
	}
	names := list(t, dir)
	if len(names) != files || len(slices.Compact(slices.Sorted(slices.Values(names)))) != files {
		t.Errorf("%d names", len(names))
	}
}

// TestLsAsksForPagesOfAttributes: ls -l of a directory costs the daemon a request
// for a page of names, not some for each; and a find that wants no attributes has
// none made.
func TestLsAsksForPagesOfAttributes(t *testing.T) {
	m, _ := bucketMount(t)
	const files = 2000
	putMany(t, m, "dir", files)
	requests := func(args ...string) (lookups, all int) {
		t.Helper()
		m.stop()
		m.start("--attributes", "list", "--log-level", "debug")
		before := len(m.log.String())
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if n := bytes.Count(out, []byte("\n")); err != nil || n < files {
			t.Fatalf("%q: %v, %d lines", args, err, n)
		}
		log := m.log.String()[before:]
		return strings.Count(log, ": LOOKUP "), strings.Count(log, `msg="rx `)
	}
	if lookups, all := requests("ls", "-l", m.path("bucket", "dir")); lookups > 50 || all > 100 {
		t.Errorf("ls -l of %d files cost %d look-ups, %d requests in all", files, lookups, all)
	}
	if lookups, all := requests("find", m.path("bucket", "dir")); lookups > 10 || all > 50 {
		t.Errorf("find of %d files cost %d look-ups, %d requests in all", files, lookups, all)
	}
}
