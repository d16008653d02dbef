package storetest

import (
	"testing"

	"coffer/objstore"
)

func TestModeTable(t *testing.T) {
	got := ModeTable([]ModeRow{
		{objstore.ModeSSES3, "put", Works, ""},
		{objstore.ModeSSES3, "copy", Works, ""},
		{objstore.ModeSSEC, "put", Cannot, "no key"},
		{objstore.ModeSSEC, "wrong key", Refused, "no key"},
	})
	want := `| verb | SSE-S3 | SSE-C |
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
