package e2e

import (
	"crypto/rand"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"coffer/objstore/emulator"
)

// TestSemanticsPageNamesRealTests holds ../fs/SEMANTICS.md to its word: every
// promise names a test, and every test that it names is there.
func TestSemanticsPageNamesRealTests(t *testing.T) {
	page, err := os.ReadFile("../fs/SEMANTICS.md")
	must(t, err)
	tests := map[string]bool{}
	for _, dir := range []string{".", "../fs", "../cache", "../objstore/s3store", "../objstore/cse"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		must(t, err)
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, 0)
			must(t, err)
			for _, d := range parsed.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					tests[fn.Name.Name] = true
				}
			}
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	count := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "- ") {
			continue
		}
		count++
		names := named.FindAllStringSubmatch(line, -1)
		if len(names) == 0 {
			t.Errorf("a promise without a test: %s", line)
		}
		for _, n := range names {
			if !tests[n[1]] {
				t.Errorf("%s is named and does not exist: %s", n[1], line)
			}
		}
	}
	if count < 30 {
		t.Errorf("only %d promises found: has the page another form now?", count)
	}
}

// write makes a file in one go.
func write(t testing.TB, path, data string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(data), 0o644))
}

// want fails unless the file holds data.
func want(t testing.TB, path, data string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != data {
		t.Errorf("%s: %.60q, %v, want %.60q", filepath.Base(path), got, err, data)
	}
}

// absent fails when the path exists.
func absent(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want it gone", path, err)
	}
}

// list returns the names in a directory.
func list(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// count returns how many logged requests have the verb and, if not empty, the key.
func count(s *emulator.Server, verb, key string) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Verb == verb && (key == "" || r.Key == key) {
			n++
		}
	}
	return n
}

// random returns bytes that nothing compresses.
func random(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := rand.Read(b)
	must(t, err)
	return b
}
