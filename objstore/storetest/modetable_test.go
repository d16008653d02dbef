package storetest

import (
	"testing"

	"coffer/objstore"
)

func TestModeTable(t *testing.T) {
	got := ModeTable([]ModeRow{
		{"one", objstore.ModeSSES3, "put", Works, ""},
		{"one", objstore.ModeSSES3, "copy", Works, ""},
		{"two", objstore.ModeSSEC, "put", Cannot, "no key"},
		{"two", objstore.ModeSSEC, "wrong key", Refused, "no key"},
	})
	want := `| verb | one, SSE-S3 | two, SSE-C |
|---|---|---|
| put | works | server cannot [1] |
| copy | works | - |
| wrong key | - | refused as it must [1] |

1. no key
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
