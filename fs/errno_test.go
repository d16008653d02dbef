package fs

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"coffer/objstore"
)

// TestDamageIsLoggedOnce: whoever goes on to read what is damaged gets EIO each time, and
// the log has one line; of other troubles it has all.
func TestDamageIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	f := newFilesystem(Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}.withDefaults())
	defer f.close()
	for _, c := range []struct {
		op, path string
		kind     objstore.Kind
		lines    int
	}{
		{"read", "b/x", objstore.Integrity, 1},
		{"read", "b/x", objstore.Integrity, 0},
		{"read", "b/y", objstore.Integrity, 1},
		{"write", "b/x", objstore.Integrity, 1},
		{"read", "b/x", objstore.Unavailable, 1},
		{"read", "b/x", objstore.Unavailable, 1},
	} {
		log.Reset()
		err := &objstore.Error{Op: "get", Key: c.path, Kind: c.kind, Err: errors.New("frame 7")}
		if e := f.errno(c.op, c.path, err); e != syscall.EIO {
			t.Errorf("%+v: %v", c, e)
		}
		if n := strings.Count(log.String(), "frame 7"); n != c.lines {
			t.Errorf("%+v: the log says %q", c, &log)
		}
	}
}
