package fs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A notification waits for the requests on its inode that are under way, so
// one that is sent from inside of a request, or under a lock that a request
// takes, can wait for ever. Only the notifier's own goroutine sends any, and
// it holds nothing.
func TestNotificationsComeFromTheNotifier(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range parsed.Decls {
			fn, _ := decl.(*ast.FuncDecl)
			ast.Inspect(decl, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok || !slices.Contains(notifications, sel.Sel.Name) {
					return true
				}
				sent++
				if fn == nil || fn.Name.Name != "newNotifier" {
					t.Errorf("%s: %s outside of the notifier", fset.Position(sel.Pos()), sel.Sel.Name)
				}
				return true
			})
		}
	}
	if sent == 0 {
		t.Error("no notification is sent at all: has go-fuse renamed them?")
	}
}

// notifications are the methods of go-fuse that send one: of an inode, and of
// the server below.
var notifications = []string{
	"NotifyContent", "NotifyEntry", "NotifyDelete", "WriteCache",
	"InodeNotify", "InodeNotifyStoreCache", "EntryNotify", "DeleteNotify",
}
