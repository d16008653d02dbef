package cache

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Decrypted bytes stay out of core files: every mapping that blocks get their
// memory from has the kernel's mark for that.
func TestBlocksAreNotDumped(t *testing.T) {
	c := testCache(t, Config{})
	f := newFake(300_000, 8)
	r := c.OpenReader(f, f.ref(), f.object())
	defer r.Close()
	s, err := r.ReadAt(t.Context(), 0, len(f.data))
	require.NoError(t, err)
	defer s.Release()
	for _, p := range s.Slices() {
		require.Contains(t, vmFlags(t, uintptr(unsafe.Pointer(&p[0]))), "dd", "VmFlags of the mapping of a block")
	}
	// The heap has not: the test can tell them apart.
	heap := make([]byte, 1<<20)
	require.NotContains(t, vmFlags(t, uintptr(unsafe.Pointer(&heap[0]))), "dd", "VmFlags of the heap")
}

// vmFlags returns what the kernel says of the mapping that holds an address.
func vmFlags(t *testing.T, addr uintptr) []string {
	t.Helper()
	file, err := os.Open("/proc/self/smaps")
	require.NoError(t, err)
	defer file.Close()
	inside := false
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			inside = from <= addr && addr < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && inside {
			return strings.Fields(flags)
		}
	}
	require.NoError(t, lines.Err())
	t.Fatalf("no mapping holds %#x", addr)
	return nil
}
