package fs

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Convention is how attributes are written into the metadata of an object.
// All are read, whichever is written.
type Convention string

const (
	// ConventionS3FS is that of s3fs and geesefs: mode is decimal with the
	// type bits, times are seconds with an optional fraction.
	ConventionS3FS Convention = "s3fs"
	// ConventionRclone is that of rclone --metadata: mode is octal with the
	// type bits, mtime is as in s3fs's, atime is RFC 3339.
	ConventionRclone Convention = "rclone"
	// ConventionFSx is that of FSx for Lustre, S3 Files, DataSync and File
	// Gateway: mode is octal, times are milliseconds, or nanoseconds with
	// "ns" behind them.
	ConventionFSx Convention = "fsx"
)

// Names of the metadata that carries attributes, of s3fs and rclone, and of
// FSx. Owners are decimal in all.
const (
	metaMode  = "mode"
	metaUID   = "uid"
	metaGID   = "gid"
	metaMtime = "mtime"
	metaAtime = "atime"
	metaCtime = "ctime" // written by s3fs; LastModified is as good, and not outdated
	metaRdev  = "rdev"  // of a device node, decimal as the kernel's 32 bits

	fsxMode  = "file-permissions"
	fsxUID   = "file-owner"
	fsxGID   = "file-group"
	fsxMtime = "file-mtime"
	fsxAtime = "file-atime"
)

// attributeValues has all of them, which no extended attribute can have, and
// tells what is an attribute's value: foreign metadata may share the name alone.
var attributeValues = map[string]func(string) bool{
	metaMode: readBy(parseMode), fsxMode: readBy(parseOctal),
	metaUID: readBy(parseID), fsxUID: readBy(parseID),
	metaGID: readBy(parseID), fsxGID: readBy(parseID),
	metaMtime: readBy(parseTime, parseRFC3339), fsxMtime: readBy(parseUnits),
	metaAtime: readBy(parseTime, parseRFC3339), fsxAtime: readBy(parseUnits),
	metaCtime: readBy(parseTime, parseRFC3339),
	metaRdev:  readBy(parseID),
}

// readBy tells whether one of the functions can read a value.
func readBy[T any](parse ...func(string) (T, bool)) func(string) bool {
	return func(s string) bool {
		return slices.ContainsFunc(parse, func(p func(string) (T, bool)) bool { _, ok := p(s); return ok })
	}
}

// isAttribute reports whether metadata of that name is kept for attributes.
func isAttribute(name string) bool { return attributeValues[name] != nil }

// attributeRoom is the most that attributes take of an object's metadata, in
// bytes: extended attributes leave it free, or chmod would fail.
const attributeRoom = 160

// attributesOf reads metadata; what does not parse is as if it were absent,
// for a foreign tool may use the same names for other things.
func attributesOf(meta map[string]string) attributes {
	var a attributes
	if a.mode, a.hasMode = parseMode(meta[metaMode]); !a.hasMode {
		a.mode, a.hasMode = parseOctal(meta[fsxMode])
	}
	if a.uid, a.hasUID = parseID(meta[metaUID]); !a.hasUID {
		a.uid, a.hasUID = parseID(meta[fsxUID])
	}
	if a.gid, a.hasGID = parseID(meta[metaGID]); !a.hasGID {
		a.gid, a.hasGID = parseID(meta[fsxGID])
	}
	a.rdev, _ = parseID(meta[metaRdev])
	a.mtime = timeOf(meta, metaMtime, fsxMtime)
	a.atime = timeOf(meta, metaAtime, fsxAtime)
	return a
}

// put writes a into meta, which it changes. Of what other conventions call the
// same attributes nothing is left: it would contradict sooner or later. What is
// no attribute stays, unless the name is needed.
func (a attributes) put(meta map[string]string, c Convention) {
	maps.DeleteFunc(meta, func(name, value string) bool { return isAttribute(name) && attributeValues[name](value) })
	set := func(has bool, s3fs, fsx, value string) {
		switch {
		case has && c == ConventionFSx:
			meta[fsx] = value
		case has:
			meta[s3fs] = value
		}
	}
	set(a.hasMode, metaMode, fsxMode, c.mode(a.mode))
	set(a.hasUID, metaUID, fsxUID, strconv.FormatUint(uint64(a.uid), 10))
	set(a.hasGID, metaGID, fsxGID, strconv.FormatUint(uint64(a.gid), 10))
	set(a.rdev != 0, metaRdev, metaRdev, strconv.FormatUint(uint64(a.rdev), 10))
	set(!a.mtime.IsZero(), metaMtime, fsxMtime, c.mtime(a.mtime))
	set(!a.atime.IsZero(), metaAtime, fsxAtime, c.atime(a.atime))
}

func (c Convention) mode(m uint32) string {
	switch c {
	case ConventionRclone:
		s := strconv.FormatUint(uint64(m), 8)
		if read, _ := parseMode(s); read != m {
			return "0" + s // as a fifo, which would be a device in decimal
		}
		return s
	case ConventionFSx:
		return "0" + strconv.FormatUint(uint64(m), 8)
	}
	return strconv.FormatUint(uint64(m), 10)
}

func (c Convention) mtime(t time.Time) string {
	if c == ConventionFSx {
		return formatUnits(t)
	}
	return formatTime(t)
}

func (c Convention) atime(t time.Time) string {
	if c == ConventionRclone {
		return t.UTC().Format(time.RFC3339Nano)
	}
	return c.mtime(t)
}

// missingMtime returns the metadata that says mtime t, for a copy of what has
// none, by any of the names that follow.
func (c Convention) missingMtime(t time.Time) (missing map[string]string, unless []string) {
	if t.IsZero() {
		return nil, nil
	}
	missing = map[string]string{}
	attributes{mtime: t}.put(missing, c)
	return missing, []string{metaMtime, fsxMtime}
}

// withoutMtime returns meta without an mtime; it may be meta itself, which
// stays as it is.
func withoutMtime(meta map[string]string) map[string]string {
	_, s3fs := meta[metaMtime]
	_, fsx := meta[fsxMtime]
	if !s3fs && !fsx {
		return meta
	}
	rest := make(map[string]string, len(meta))
	for name, value := range meta {
		if name != metaMtime && name != fsxMtime {
			rest[name] = value
		}
	}
	return rest
}

// parseMode reads the mode of s3fs or rclone, which use one name for it. Both
// write the type bits, and a number that has them in decimal has none in octal,
// with exceptions. A leading zero is octal. 41777 is a directory in octal and
// a symbolic link in decimal, but links are always 0120777. And 10644 is a fifo
// in octal, and a device in decimal: rclone copies neither.
func parseMode(s string) (uint32, bool) {
	if strings.HasPrefix(s, "0") {
		return parseOctal(s)
	}
	decimal, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, false
	}
	octal, ok := parseOctal(s)
	mode := uint32(decimal)
	switch {
	case ok && octal&syscall.S_IFMT == syscall.S_IFDIR && mode != syscall.S_IFLNK|0o777,
		ok && isType(octal) && !isType(mode) && mode > 0o7777:
		return octal, true
	}
	return mode, true
}

// isType reports whether the type bits of mode are those of something.
func isType(mode uint32) bool {
	if mode > 0o177777 {
		return false
	}
	switch mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFDIR, syscall.S_IFLNK, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
		return true
	}
	return false
}

func parseOctal(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 8, 32)
	return uint32(v), err == nil
}

func parseID(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err == nil
}

// timeOf returns the time under the name of s3fs and rclone, or that of FSx;
// zero when there is none.
func timeOf(meta map[string]string, s3fs, fsx string) time.Time {
	for _, parse := range []func(string) (time.Time, bool){parseTime, parseRFC3339} {
		if t, ok := parse(meta[s3fs]); ok {
			return t
		}
	}
	t, _ := parseUnits(meta[fsx])
	return t
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

// parseRFC3339 reads rclone's times, but for mtime.
func parseRFC3339(s string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

// formatUnits writes a time as FSx does, or in milliseconds where nanoseconds
// do not reach: before 1678 and after 2262.
func formatUnits(t time.Time) string {
	if ns := t.UnixNano(); time.Unix(0, ns).Equal(t) {
		return strconv.FormatInt(ns, 10) + "ns"
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// parseUnits reads a time of FSx or DataSync.
func parseUnits(s string) (time.Time, bool) {
	digits, ns := strings.CutSuffix(s, "ns")
	v, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case err != nil:
		return time.Time{}, false
	case ns:
		return time.Unix(0, v), true
	}
	return time.UnixMilli(v), true
}
