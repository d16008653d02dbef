package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// semanticsTable returns the rows of the table below a heading of SEMANTICS.md,
// each cell without its code quotes.
func semanticsTable(t *testing.T, heading string) [][]string {
	t.Helper()
	page, err := os.ReadFile("../fs/SEMANTICS.md")
	must(t, err)
	_, rest, ok := strings.Cut(string(page), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("SEMANTICS.md has no %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n##")
	var rows [][]string
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ") {
			cells = append(cells, strings.TrimSpace(strings.ReplaceAll(c, "`", "")))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 5 {
		t.Fatalf("%d rows below %q: has the table another form now?", len(rows), heading)
	}
	return rows
}

// oddName is a name as the page writes it: a Go string, in which {n*x} stands
// for n times x.
func oddName(t *testing.T, text string) string {
	t.Helper()
	name, err := strconv.Unquote(text)
	must(t, err)
	return regexp.MustCompile(`\{(\d+)\*([^}]+)\}`).ReplaceAllStringFunc(name, func(s string) string {
		count, what, _ := strings.Cut(strings.Trim(s, "{}"), "*")
		n, err := strconv.Atoi(count)
		must(t, err)
		return strings.Repeat(what, n)
	})
}

// TestOddKeys holds every line of the table of keys that other clients made.
func TestOddKeys(t *testing.T) {
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	m := mountStore(t, s.Env())
	for i, row := range semanticsTable(t, "### Keys that other clients made") {
		key, shown, how := oddName(t, row[0]), oddName(t, row[1]), row[2]
		t.Run(row[0], func(t *testing.T) {
			bucket := "bucket-" + strconv.Itoa(i)
			other.makeBucket(t, bucket)
			other.put(t, bucket, key, "data of "+key)
			lines := strings.Count(m.log.String(), "hidden")
			var found []string
			top := m.path(bucket)
			must(t, filepath.WalkDir(top, func(p string, d os.DirEntry, err error) error {
				if err == nil && (!d.IsDir() || how == "directory") && p != top {
					found = append(found, strings.TrimPrefix(p, top+"/"))
				}
				return err
			}))
			wantLines := map[string]int{"hidden": 1}[how]
			logged := func() int { return strings.Count(m.log.String(), "hidden") - lines }
			for deadline := time.Now().Add(5 * time.Second); logged() < wantLines && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // the log comes through a pipe
			}
			if n := logged(); n != wantLines {
				t.Errorf("%d log lines about hidden objects, want %d", n, wantLines)
			}
			switch how {
			case "file", "directory":
				if len(found) != 1 || found[0] != shown {
					t.Fatalf("the mount shows %q, want %q", found, shown)
				}
				if how == "file" {
					want(t, top+"/"+shown, "data of "+key)
				}
			case "hidden", "hidden silently":
				if len(found) != 0 {
					t.Errorf("the mount shows %q", found)
				}
			default:
				t.Errorf("the page says %q", how)
			}
			if got := other.get(t, bucket, key); got != "data of "+key {
				t.Errorf("the object is %q after the look", got)
			}
		})
	}
}

// TestRefusedNames holds every line of the table of names that cannot be made.
func TestRefusedNames(t *testing.T) {
	m, s := bucketMount(t)
	for _, row := range semanticsTable(t, "### Names that are refused") {
		name, where, errno := oddName(t, row[0]), row[1], row[2]
		t.Run(row[0], func(t *testing.T) {
			wantErr := map[string]syscall.Errno{"EINVAL": syscall.EINVAL, "ENAMETOOLONG": syscall.ENAMETOOLONG, "EILSEQ": syscall.EILSEQ}[errno]
			if wantErr == 0 {
				t.Fatalf("the page says %q", errno)
			}
			switch where {
			case "bucket":
				wantErrno(t, "mkdir of a bucket", os.Mkdir(m.path(name), 0o755), wantErr)
			case "file or directory":
				p := m.path("bucket") + "/" + name
				must(t, os.MkdirAll(filepath.Dir(p), 0o755))
				wantErrno(t, "create", os.WriteFile(p, []byte("data"), 0o644), wantErr)
				wantErrno(t, "mkdir", os.Mkdir(p, 0o755), wantErr)
				wantErrno(t, "symlink", os.Symlink("target", p), wantErr)
				write(t, m.path("bucket", "source"), "data")
				wantErrno(t, "rename", os.Rename(m.path("bucket", "source"), p), wantErr)
				want(t, m.path("bucket", "source"), "data")
			default:
				t.Errorf("the page says %q", where)
			}
		})
	}
	for _, r := range s.Requests() {
		if r.Verb == "PutObject" && len(r.Key) > 1024 {
			t.Errorf("a key of %d bytes was sent", len(r.Key))
		}
	}
}

// TestTwins: names that differ in case, in Unicode normalisation or in a dot
// are different files, and a listing shows each once.
func TestTwins(t *testing.T) {
	m, s := bucketMount(t)
	names := []string{"case", "Case", "CASE", "caf\u00e9", "cafe\u0301", "\u212b", "\u00c5", "x", "x.", "x ", " x"}
	for _, name := range names {
		write(t, m.path("bucket", name), "data of "+name)
	}
	m.stop()
	m.start()
	entries, err := os.ReadDir(m.path("bucket"))
	must(t, err)
	if len(entries) != len(names) {
		t.Errorf("%d names, want %d: %q", len(entries), len(names), entries)
	}
	other := client(t, s.Env())
	for _, name := range names {
		want(t, m.path("bucket", name), "data of "+name)
		if got := other.get(t, "bucket", name); got != "data of "+name {
			t.Errorf("object %q is %q", name, got)
		}
	}
}
