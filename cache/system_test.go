package cache

import (
	"math"
	"os"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestMemoryLimit(t *testing.T) {
	const meminfo = "MemTotal:       16384 kB\nMemFree: 1 kB\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing to read", nil, math.MaxInt64},
		{"no cgroup", map[string]string{"proc/meminfo": meminfo}, 16 << 20},
		{"version 2", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/job/step\n",
			"sys/fs/cgroup/job/step/memory.max": "8388608\n",
		}, 8 << 20},
		{"version 2, the job's limit is less than the step's", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/job/step\n",
			"sys/fs/cgroup/job/step/memory.max": "max\n", "sys/fs/cgroup/job/memory.max": "4194304\n",
		}, 4 << 20},
		{"version 2 in a container: only the root is seen", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/host/path\n",
			"sys/fs/cgroup/memory.max": "2097152\n",
		}, 2 << 20},
		{"version 1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/slurm/uid_1/job_2\n",
			"sys/fs/cgroup/memory/slurm/uid_1/job_2/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/slurm/uid_1/memory.limit_in_bytes":       "1048576\n",
		}, 1 << 20},
		{"hybrid", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "1:name=systemd:/\n0::/a\n",
			"sys/fs/cgroup/unified/a/memory.max": "524288\n",
		}, 512 << 10},
		{"nonsense", map[string]string{
			"proc/meminfo": "MemTotal: x kB\n", "proc/self/cgroup": "0:\n\nx:memory\n0::relative\n4:memory:/m\n",
			"sys/fs/cgroup/memory/m/memory.limit_in_bytes": "-5\n",
		}, math.MaxInt64},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range tc.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			require.Equal(t, tc.want, memoryLimit(root))
		})
	}
}

func TestDefaultMemory(t *testing.T) {
	for limit, want := range map[int64]int64{
		512 << 20: 64 << 20, 1 << 30: 64 << 20, 2 << 30: 128 << 20, 4 << 30: 256 << 20, math.MaxInt64: 256 << 20,
	} {
		require.Equal(t, want, defaultMemory(limit), "limit %d", limit)
	}
	require.Equal(t, defaultMemory(memoryLimit(os.DirFS("/"))), DefaultMemory())
}

func TestConfigValidate(t *testing.T) {
	ok := Config{StoreID: "s"}
	require.NoError(t, ok.Validate())
	for name, cfg := range map[string]Config{
		"no store":          {},
		"odd block":         {StoreID: "s", BlockBytes: 100_000},
		"small block":       {StoreID: "s", BlockBytes: 4096},
		"large block":       {StoreID: "s", BlockBytes: 32 << 20},
		"little memory":     {StoreID: "s", MemoryBytes: 15 << 20},
		"negative memory":   {StoreID: "s", MemoryBytes: -1},
		"negative deadline": {StoreID: "s", FetchTimeout: -1},
	} {
		require.Error(t, cfg.Validate(), name)
		_, err := New(cfg)
		require.Error(t, err, name)
	}
	_, err := New(Config{StoreID: "s", ScratchDir: "/nonexistent"})
	require.Error(t, err)
	_, err = New(Config{StoreID: "s", ScratchDir: "/proc/version"})
	require.Error(t, err)
}
