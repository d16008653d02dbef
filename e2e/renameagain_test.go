package e2e

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"coffer/objstore/emulator"
)

const notePrefix = ".coffer-probe-moved-" // of the note that all is copied

// largeFile is stored in parts: its copies have another ETag.
const largeFile = "large"

func dataOf(name string) string {
	if name == largeFile {
		return strings.Repeat(name, 2<<20)
	}
	return "data " + name
}

// manyFiles makes a directory "from" with files in two directories, one of them
// with a mode and metadata of its own.
func manyFiles(t *testing.T, m *mount) (names []string) {
	t.Helper()
	must(t, os.MkdirAll(m.path("bucket", "from", "sub"), 0o755))
	for i := range 20 {
		names = append(names, fmt.Sprintf("%d", i), fmt.Sprintf("sub/%d", i))
	}
	names = append(names, largeFile)
	for _, name := range names {
		write(t, m.path("bucket", "from", name), dataOf(name))
	}
	must(t, os.Chmod(m.path("bucket", "from", "7"), 0o600))
	must(t, os.Chmod(m.path("bucket", "from"), 0o750))
	return names
}

// hasMoved looks whether "to" has all of what was "from", and nothing is left.
func hasMoved(t *testing.T, m *mount, names []string) {
	t.Helper()
	absent(t, m.path("bucket", "from"))
	for _, name := range names {
		want(t, m.path("bucket", "to", name), dataOf(name))
	}
	for name, mode := range map[string]os.FileMode{"to": 0o750, "to/7": 0o600, "to/8": 0o644} {
		if st, err := os.Stat(m.path("bucket", name)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, %v, want %v", name, st.Mode(), err, mode)
		}
	}
	keys := client(t, m.env).keys(t, "bucket")
	if len(keys) != len(names)+2 { // with the markers of to and to/sub, and nothing beside
		for key := range keys {
			if !strings.HasPrefix(key, "to/") {
				t.Errorf("left in the store: %s", key)
			}
		}
		t.Errorf("%d objects in the store, want %d and markers", len(keys), len(names))
	}
}

// TestRenameAgainFinishes breaks the rename of a directory off in each of its
// phases, by refusals, by a store that fails and by a kill, and renames again.
func TestRenameAgainFinishes(t *testing.T) {
	again := func(t *testing.T, m *mount) {
		t.Helper()
		must(t, syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")))
	}
	// until waits for what the store then has.
	until := func(t *testing.T, m *mount, what func(keys map[string]int64) bool) {
		t.Helper()
		other := client(t, m.env)
		for deadline := time.Now().Add(20 * time.Second); !what(other.keys(t, "bucket")); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the rename never came so far")
			}
		}
	}
	below := func(prefix string, n int) func(map[string]int64) bool {
		return func(keys map[string]int64) bool {
			for key := range keys {
				if strings.HasPrefix(key, prefix) {
					n--
				}
			}
			return n <= 0
		}
	}
	// killed stalls a kind of request, and kills the daemon when enough is done.
	killed := func(t *testing.T, m *mount, s *emulator.Server, f emulator.Fault, enough func(map[string]int64) bool) {
		t.Helper()
		f.Stall = true
		s.Inject(f)
		done := make(chan error, 1)
		go func() { done <- syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")) }()
		until(t, m, enough)
		m.kill()
		if err := <-done; err == nil {
			t.Error("the rename succeeded")
		}
		s.ClearFaults()
		m.start()
	}
	for name, breakOff := range map[string]func(t *testing.T, m *mount, s *emulator.Server){
		"copies refused, and they stay": func(t *testing.T, m *mount, s *emulator.Server) {
			s.Inject(emulator.Fault{Verb: "CopyObject", KeyPattern: "to/sub/13", Code: "AccessDenied"})
			s.Inject(emulator.Fault{Verb: "DeleteObjects", Code: "AccessDenied"})
			wantErrno(t, "rename", syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")), syscall.EACCES)
			s.ClearFaults()
			until(t, m, below("to/", 10))
		},
		"deletes refused": func(t *testing.T, m *mount, s *emulator.Server) {
			s.Inject(emulator.Fault{Verb: "DeleteObjects", Code: "AccessDenied"})
			wantErrno(t, "rename", syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")), syscall.EACCES)
			s.ClearFaults()
			other := client(t, m.env)
			for _, key := range []string{"from/3", "from/sub/4", "from/sub/5"} { // as if some had gone
				must(t, other.c.RemoveObject(t.Context(), "bucket", key, minio.RemoveObjectOptions{}))
			}
		},
		"the marker stays": func(t *testing.T, m *mount, s *emulator.Server) {
			s.Inject(emulator.Fault{Verb: "DeleteObject", KeyPattern: "from/", Code: "AccessDenied"})
			wantErrno(t, "rename", syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")), syscall.EACCES)
			s.ClearFaults()
		},
		"killed while it copies": func(t *testing.T, m *mount, s *emulator.Server) {
			killed(t, m, s, emulator.Fault{Verb: "CopyObject", KeyPattern: "to/sub/13"}, below("to/", 10))
		},
		"killed while it deletes": func(t *testing.T, m *mount, s *emulator.Server) {
			killed(t, m, s, emulator.Fault{Verb: "DeleteObjects"}, below(notePrefix, 1))
			must(t, client(t, m.env).c.RemoveObject(t.Context(), "bucket", "from/3", minio.RemoveObjectOptions{}))
		},
		"killed twice": func(t *testing.T, m *mount, s *emulator.Server) {
			killed(t, m, s, emulator.Fault{Verb: "CopyObject", KeyPattern: "to/sub/13"}, below("to/", 10))
			killed(t, m, s, emulator.Fault{Verb: "DeleteObjects"}, below(notePrefix, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := bucketMount(t)
			names := manyFiles(t, m)
			breakOff(t, m, s)
			again(t, m)
			hasMoved(t, m, names)
		})
	}
	t.Run("by mv -T", func(t *testing.T) {
		m, s := bucketMount(t)
		names := manyFiles(t, m)
		killed(t, m, s, emulator.Fault{Verb: "DeleteObjects"}, below(notePrefix, 1))
		if out, err := exec.Command("mv", "-T", m.path("bucket", "from"), m.path("bucket", "to")).CombinedOutput(); err != nil {
			t.Errorf("mv -T: %v\n%s", err, out)
		}
		hasMoved(t, m, names)
	})
}

// TestRenameAgainSparesOthers: what a broken off rename has not left is not
// taken for what it has; then the answer is ENOTEMPTY, and nothing changes.
func TestRenameAgainSparesOthers(t *testing.T) {
	refusedDeletes := func(t *testing.T, m *mount, s *emulator.Server) {
		t.Helper()
		s.Inject(emulator.Fault{Verb: "DeleteObjects", Code: "AccessDenied"})
		wantErrno(t, "rename", syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")), syscall.EACCES)
		s.ClearFaults()
		time.Sleep(1100 * time.Millisecond) // the store tells times in seconds
	}
	// instead stores another object in place of a copy, with the same metadata.
	instead := func(t *testing.T, m *mount, data, contentType string) {
		t.Helper()
		other := client(t, m.env)
		was := other.stat(t, "bucket", "to/3")
		other.putWith(t, "bucket", "to/3", data, cmp.Or(contentType, was.ContentType), was.UserMetadata)
	}
	for name, change := range map[string]func(t *testing.T, m *mount, s *emulator.Server){
		"other bytes with the same attributes": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			instead(t, m, strings.ToUpper(dataOf("3")), "")
		},
		"the same bytes of another type": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			instead(t, m, dataOf("3"), "text/plain")
		},
		"another file": func(t *testing.T, m *mount, s *emulator.Server) {
			must(t, os.Mkdir(m.path("bucket", "to"), 0o755))
			write(t, m.path("bucket", "to", "own"), "mine")
		},
		"a file of that name": func(t *testing.T, m *mount, s *emulator.Server) {
			must(t, os.Mkdir(m.path("bucket", "to"), 0o755))
			write(t, m.path("bucket", "to", "3"), "mine 3")
		},
		"a copy of another mode": func(t *testing.T, m *mount, s *emulator.Server) {
			shell(t, nil, `mkdir "$DST" && cp -p "$SRC/3" "$DST/3" && chmod 600 "$DST/3"`, m.path("bucket", "from"), m.path("bucket", "to"))
		},
		"a file that came later": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			write(t, m.path("bucket", "to", "later"), "mine")
		},
		"a copy that was changed": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			write(t, m.path("bucket", "to", "3"), "mine 3")
		},
		"an original that was changed": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			write(t, m.path("bucket", "from", "3"), "mine 3")
		},
		"another directory of that name": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			must(t, os.RemoveAll(m.path("bucket", "from")))
			must(t, os.Mkdir(m.path("bucket", "from"), 0o755))
		},
		"unlinked and open": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			f, err := os.Open(m.path("bucket", "to", "3"))
			must(t, err)
			t.Cleanup(func() { f.Close() })
			must(t, os.Remove(m.path("bucket", "to", "3")))
		},
		"not stored yet": func(t *testing.T, m *mount, s *emulator.Server) {
			refusedDeletes(t, m, s)
			f, err := os.Create(m.path("bucket", "to", "open"))
			must(t, err)
			t.Cleanup(func() { f.Close() })
			_, err = f.WriteString("mine")
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := bucketMount(t)
			manyFiles(t, m)
			change(t, m, s)
			other := client(t, m.env)
			before := map[string]string{}
			for key := range other.keys(t, "bucket") {
				before[key] = other.get(t, "bucket", key)
			}
			wantErrno(t, "rename", syscall.Rename(m.path("bucket", "from"), m.path("bucket", "to")), syscall.ENOTEMPTY)
			after := other.keys(t, "bucket")
			for key, data := range before {
				if got := other.get(t, "bucket", key); got != data {
					t.Errorf("%s has %q, had %q", key, got, data)
				}
			}
			if len(after) != len(before) {
				t.Errorf("%d objects, there were %d", len(after), len(before))
			}
		})
	}
}
