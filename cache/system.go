package cache

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

const (
	minDefaultMemory = 64 << 20
	maxDefaultMemory = 256 << 20
)

// DefaultMemory returns the memory budget in bytes that suits this process: a
// sixteenth of what the machine or its cgroup allows, whichever is less, from
// 64 to 256 MiB. Batch systems set the cgroup to what the job asked for, and
// the job itself wants most of it. The kernel's page cache is the first cache
// of a machine and gives way when programs need the memory; that of a daemon
// cannot. So there need be no more here than keeps transfers going: deep
// windows of a few streams, the buffers of a few files being written.
func DefaultMemory() int64 { return defaultMemory(memoryLimit(os.DirFS("/"))) }

func defaultMemory(limit int64) int64 {
	return min(max(limit/16, minDefaultMemory), maxDefaultMemory)
}

// memoryLimit returns the bytes of memory that the process may use, by the
// files of a Linux system whose root is root. Files that are missing or do not
// parse limit nothing.
func memoryLimit(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	if b, err := fs.ReadFile(root, "proc/meminfo"); err == nil {
		limit = min(limit, memTotal(b))
	}
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return limit
	}
	v1, v2 := cgroupPaths(b)
	if v1 != "" {
		limit = min(limit, cgroupLimit(root, "sys/fs/cgroup/memory", v1, "memory.limit_in_bytes"))
	}
	if v2 != "" {
		limit = min(limit, cgroupLimit(root, "sys/fs/cgroup", v2, "memory.max"))
		// Hybrid systems mount the second version beside the first.
		limit = min(limit, cgroupLimit(root, "sys/fs/cgroup/unified", v2, "memory.max"))
	}
	return limit
}

// memTotal returns the MemTotal of /proc/meminfo in bytes.
func memTotal(meminfo []byte) int64 {
	for line := range bytes.Lines(meminfo) {
		rest, ok := bytes.CutPrefix(line, []byte("MemTotal:"))
		if !ok {
			continue
		}
		f := strings.Fields(string(rest))
		if len(f) != 2 || f[1] != "kB" {
			break
		}
		kib, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil || kib <= 0 || kib > math.MaxInt64>>10 {
			break
		}
		return kib << 10
	}
	return math.MaxInt64
}

// cgroupPaths returns the process's memory cgroup of version 1 and its cgroup
// of version 2 from /proc/self/cgroup, "" where there is none. Its lines are
// hierarchy:controllers:path, and 0::path for version 2 (cgroups(7)).
func cgroupPaths(cgroup []byte) (v1, v2 string) {
	for line := range strings.Lines(string(cgroup)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			v2 = f[2]
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			if c == "memory" {
				v1 = f[2]
			}
		}
	}
	return v1, v2
}

// cgroupLimit returns the smallest limit of a cgroup and those above it. In a
// container the path may be one of the host that is not to be seen; then what
// the mount's root says still counts.
func cgroupLimit(root fs.FS, mount, group, file string) int64 {
	limit := int64(math.MaxInt64)
	for p := path.Clean(group); ; p = path.Dir(p) {
		if b, err := fs.ReadFile(root, path.Join(mount, p, file)); err == nil {
			limit = min(limit, parseLimit(b))
		}
		if p == "/" {
			return limit
		}
	}
}

// parseLimit parses a limit file: a number of bytes, or "max".
func parseLimit(b []byte) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}
