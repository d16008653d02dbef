package fs

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Names of the metadata that carries attributes. They are those of s3fs,
// which rclone shares for mtime: mode is decimal with the type bits, uid and
// gid are decimal, times are seconds with an optional fraction.
const (
	metaMode  = "mode"
	metaUID   = "uid"
	metaGID   = "gid"
	metaMtime = "mtime"
	metaRdev  = "rdev" // of a device node, decimal as the kernel's 32 bits
)

// reservedMeta are the names that attributes take; they cannot be set as
// extended attributes.
func reservedMeta(name string) bool {
	switch name {
	case metaMode, metaUID, metaGID, metaMtime, metaRdev:
		return true
	}
	return false
}

// attributes are what metadata says of a file. The zero value says nothing.
type attributes struct {
	mode    uint32 // type and permission bits
	hasMode bool
	uid     uint32
	hasUID  bool
	gid     uint32
	hasGID  bool
	rdev    uint32 // of a device node
	// mtime is zero when it was never set explicitly: LastModified counts.
	mtime time.Time
}

// attributesOf reads metadata; what does not parse is as if it were absent,
// for a foreign tool may use the same names for other things.
func attributesOf(meta map[string]string) attributes {
	var a attributes
	if v, err := strconv.ParseUint(meta[metaMode], 10, 32); err == nil {
		a.mode, a.hasMode = uint32(v), true
	}
	if v, err := strconv.ParseUint(meta[metaUID], 10, 32); err == nil {
		a.uid, a.hasUID = uint32(v), true
	}
	if v, err := strconv.ParseUint(meta[metaGID], 10, 32); err == nil {
		a.gid, a.hasGID = uint32(v), true
	}
	if v, err := strconv.ParseUint(meta[metaRdev], 10, 32); err == nil {
		a.rdev = uint32(v)
	}
	a.mtime, _ = parseTime(meta[metaMtime])
	return a
}

// put writes a into meta, which it changes.
func (a attributes) put(meta map[string]string) {
	if a.hasMode {
		meta[metaMode] = strconv.FormatUint(uint64(a.mode), 10)
	}
	if a.hasUID {
		meta[metaUID] = strconv.FormatUint(uint64(a.uid), 10)
	}
	if a.hasGID {
		meta[metaGID] = strconv.FormatUint(uint64(a.gid), 10)
	}
	if a.rdev != 0 {
		meta[metaRdev] = strconv.FormatUint(uint64(a.rdev), 10)
	}
	if a.mtime.IsZero() {
		delete(meta, metaMtime)
	} else {
		meta[metaMtime] = formatTime(a.mtime)
	}
}

// formatTime writes seconds since 1970 with nanoseconds.
func formatTime(t time.Time) string {
	sec, nsec := t.Unix(), t.Nanosecond()
	sign := ""
	if sec < 0 && nsec > 0 {
		// -0.25 s is second -1 plus 750 ms: write the value, not the parts.
		sec, nsec = sec+1, 1e9-nsec
		if sec == 0 {
			sign = "-"
		}
	}
	s := sign + strconv.FormatInt(sec, 10)
	if nsec == 0 {
		return s
	}
	frac := strconv.Itoa(1e9 + nsec)[1:]
	return s + "." + strings.TrimRight(frac, "0")
}

// parseTime is the inverse of formatTime; more than nine digits of fraction
// are cut.
func parseTime(s string) (time.Time, bool) {
	if s == "" {
		return time.Time{}, false
	}
	whole, frac, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec > math.MaxInt64/2 || sec < math.MinInt64/2 {
		return time.Time{}, false
	}
	var nsec int64
	if frac != "" {
		if len(frac) > 9 {
			frac = frac[:9]
		}
		nsec, err = strconv.ParseInt(frac+strings.Repeat("0", 9-len(frac)), 10, 64)
		if err != nil || nsec < 0 {
			return time.Time{}, false
		}
	}
	if strings.HasPrefix(whole, "-") {
		nsec = -nsec
	}
	return time.Unix(sec, nsec), true
}

// setTimes fills the three times that a stat shows from the one there is.
func setTimes(out *fuse.Attr, t time.Time) {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	out.SetTimes(&t, &t, &t)
}

// blockSize is the preferred size of I/O that stat reports, in bytes: one
// full FUSE request.
const blockSize = 1 << 20

// fillOwner fills in type, permissions and owner: those of a, and the mount's
// options where a has none.
func (c *Config) fillOwner(out *fuse.Attr, a attributes, kind, perm uint32) {
	out.Mode = kind | perm
	if a.hasMode {
		out.Mode = kind | a.mode&0o7777
	}
	out.Uid, out.Gid = c.UID, c.GID
	if a.hasUID {
		out.Uid = a.uid
	}
	if a.hasGID {
		out.Gid = a.gid
	}
	out.Blksize = blockSize
}

// blocksOf returns st_blocks, in units of 512 bytes: what du adds up. An
// object has no holes and no overhead that we know of.
func blocksOf(size uint64) uint64 { return (size + 511) / 512 }

// change applies what a SETATTR asks for, besides the size; kind is the type
// of the inode. It reports whether anything is left to be stored.
func (a *attributes) change(in *fuse.SetAttrIn, kind uint32) bool {
	changed := false
	if m, ok := in.GetMode(); ok {
		a.mode, a.hasMode, changed = kind|m&0o7777, true, true
	}
	if u, ok := in.GetUID(); ok {
		a.uid, a.hasUID, changed = u, true, true
	}
	if g, ok := in.GetGID(); ok {
		a.gid, a.hasGID, changed = g, true, true
	}
	if t, ok := in.GetMTime(); ok {
		a.mtime, changed = t, true
	}
	return changed
}
