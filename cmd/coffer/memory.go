package main

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// minMemory is the least budget that keeps one stream moving: a few
	// blocks of read-ahead and two upload parts.
	minMemory = 64 << 20
	// maxAutoMemory bounds what is taken without being told to.
	maxAutoMemory = 1 << 30
)

// memoryBudget returns the cache's budget: the setting, or a quarter of what
// this process may use, between minMemory and maxAutoMemory. root is "/"
// except in tests.
func memoryBudget(setting byteSize, root string) int64 {
	if setting != 0 {
		return int64(setting)
	}
	quarter := min(physicalMemory(root), cgroupLimit(root)) / 4
	return max(minMemory, min(quarter, maxAutoMemory))
}

// physicalMemory reads MemTotal of /proc/meminfo in bytes.
func physicalMemory(root string) int64 {
	text, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return math.MaxInt64
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return kib << 10
			}
		}
	}
	return math.MaxInt64
}

// cgroupLimit returns the least memory limit of this process's cgroup and its
// ancestors, in version 2 (memory.max) and 1 (memory.limit_in_bytes). Batch
// systems set it for a job, mostly on an ancestor.
func cgroupLimit(root string) int64 {
	limit := int64(math.MaxInt64)
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		if part[1] != "" {
			if !strings.Contains(","+part[1]+",", ",memory,") {
				continue
			}
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for dir := filepath.Clean("/" + part[2]); ; dir = filepath.Dir(dir) {
			if b, err := os.ReadFile(filepath.Join(root, base, dir, file)); err == nil {
				if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 {
					limit = min(limit, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// scratchDir returns the setting, or the first directory that exists of those
// that batch systems make for a job.
func scratchDir(setting string, env environ) string {
	if setting != "" {
		return setting
	}
	for _, name := range []string{"PBS_LOCALDIR", "SLURM_TMPDIR", "TMPDIR"} {
		if dir, _ := env(name); filepath.IsAbs(dir) {
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				return dir
			}
		}
	}
	return "/tmp"
}
