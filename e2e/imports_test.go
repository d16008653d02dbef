package e2e

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers are the packages of the module and what each may import of the
// others: data flows one way, from the kernel to the store.
var layers = map[string][]string{
	"coffer/cmd/coffer": {"coffer/fs", "coffer/cache", "coffer/objstore", "coffer/objstore/s3store",
		"coffer/objstore/emulator", "coffer/objstore/cse", "coffer/objstore/cse/keyring", "coffer/objstore/cse/message"},
	"coffer/fs":                   {"coffer/cache", "coffer/objstore"},
	"coffer/cache":                {"coffer/objstore"},
	"coffer/objstore":             {},
	"coffer/objstore/cse":         {"coffer/objstore", "coffer/objstore/cse/message", "coffer/objstore/cse/keyring", "coffer/objstore/cse/s3ec"},
	"coffer/objstore/cse/interop": {},
	"coffer/objstore/cse/keyring": {"coffer/objstore", "coffer/objstore/cse/message", "coffer/objstore/cse/s3ec"},
	"coffer/objstore/cse/message": {},
	"coffer/objstore/cse/s3ec":    {"coffer/objstore/cse/message"},
	"coffer/objstore/s3store":     {"coffer/objstore"},
	"coffer/objstore/emulator":    {"coffer/objstore"},
	"coffer/objstore/storetest":   {"coffer/objstore"},
	"coffer/e2e":                  {},
}

// standardOnly are the packages that import nothing but the standard library
// and what the layers allow.
var standardOnly = []string{"coffer/objstore", "coffer/objstore/cse/message", "coffer/objstore/cse/s3ec"}

// owned are libraries that one package alone may import, or two, by the beginning of
// their path: to replace one, one package changes.
var owned = map[string]string{
	"github.com/hanwen/go-fuse/":               "coffer/fs",
	"github.com/dgraph-io/ristretto/":          "coffer/cache",
	"github.com/aws/aws-sdk-go-v2/service/s3":  "coffer/objstore/s3store",
	"github.com/spf13/cobra":                   "coffer/cmd/coffer",
	"github.com/minio/minio-go/":               "nobody but tests",
	"testing":                                  "coffer/objstore/storetest",
	"github.com/stretchr/testify/":             "nobody but tests",
	"github.com/coreos/go-systemd/":            "coffer/cmd/coffer",
	"github.com/goccy/go-yaml":                 "coffer/cmd/coffer coffer/objstore/cse/keyring",
	"github.com/hashicorp/golang-lru/":         "coffer/objstore/cse",
	"github.com/jedib0t/go-pretty/":            "coffer/cmd/coffer",
	"github.com/hanwen/go-fuse/v2/posixtest":   "nobody but tests",
	"github.com/aws/aws-sdk-go-v2/service/kms": "coffer/objstore/cse/keyring",
}

// TestImports holds every package to the layers. Test files are free: they
// are not among the imports that go list reports here.
func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Standard", "coffer/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	type pkg struct {
		ImportPath string
		Imports    []string
		Standard   bool
	}
	standard, mine := map[string]bool{}, []pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		standard[p.ImportPath] = p.Standard
		if strings.HasPrefix(p.ImportPath, "coffer/") {
			mine = append(mine, p)
		}
	}
	if len(mine) < len(layers) {
		t.Errorf("%d packages of the module are listed, the table of layers has %d", len(mine), len(layers))
	}
	for _, p := range mine {
		allowed, ok := layers[p.ImportPath]
		if !ok {
			t.Errorf("%s has no place in the table of layers", p.ImportPath)
			continue
		}
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "coffer/") && !slices.Contains(allowed, imp) {
				t.Errorf("%s imports %s, which is not below it", p.ImportPath, imp)
			}
			if slices.Contains(standardOnly, p.ImportPath) && !standard[imp] && !strings.HasPrefix(imp, "coffer/") {
				t.Errorf("%s imports %s: it is standard library only", p.ImportPath, imp)
			}
			for prefix, owner := range owned {
				if (imp == prefix || strings.HasPrefix(imp, strings.TrimSuffix(prefix, "/")+"/")) && !slices.Contains(strings.Fields(owner), p.ImportPath) {
					t.Errorf("%s imports %s, which belongs to %s", p.ImportPath, imp, owner)
				}
			}
		}
	}
}
