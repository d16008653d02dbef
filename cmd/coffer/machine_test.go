package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// machine writes files below a directory that stands for "/".
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o700))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o600))
	}
	return root
}

func TestScratchDir(t *testing.T) {
	pbs, slurm := t.TempDir(), t.TempDir()
	for _, c := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"PBS_LOCALDIR": pbs, "SLURM_TMPDIR": slurm}, pbs},
		{map[string]string{"PBS_LOCALDIR": "/no/such", "SLURM_TMPDIR": slurm}, slurm},
		{map[string]string{"TMPDIR": "relative"}, "/tmp"},
		{map[string]string{"TMPDIR": pbs}, pbs},
		{nil, "/tmp"},
	} {
		require.Equal(t, c.want, scratchDir("", envOf(c.env)))
	}
	require.Equal(t, "/x", scratchDir("/x", envOf(map[string]string{"PBS_LOCALDIR": pbs})))
}

func TestLoggerFormsAndLevels(t *testing.T) {
	cfg := defaultConfig()
	var text bytes.Buffer
	newLogger(&text, cfg).Debug("hidden")
	newLogger(&text, cfg).Info("shown", "k", "v")
	require.NotContains(t, text.String(), "hidden")
	require.Contains(t, text.String(), "msg=shown k=v")

	require.NoError(t, cfg.LogFormat.Set("json"))
	require.NoError(t, cfg.LogLevel.Set("error"))
	text.Reset()
	log := newLogger(&text, cfg)
	log.Warn("hidden")
	log.Error("shown")
	var line map[string]any
	require.NoError(t, json.Unmarshal(text.Bytes(), &line))
	require.Equal(t, "shown", line["msg"])
}

func TestAutomaticLogIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	l, err := openLogFile(name, 100)
	require.NoError(t, err)
	for range 10 {
		_, err := l.Write([]byte(strings.Repeat("x", 39) + "\n"))
		require.NoError(t, err)
	}
	for _, n := range []string{name, name + ".1"} {
		st, err := os.Stat(n)
		require.NoError(t, err)
		require.LessOrEqual(t, st.Size(), int64(100))
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	}
	require.NoError(t, l.Close())
	l.remove()
	_, err = os.Stat(name)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestAutomaticLogStaysWhenItMatters(t *testing.T) {
	for _, c := range []struct {
		name  string
		level slog.Level
		clean bool
		stays bool
	}{
		{"nothing happened", slog.LevelInfo, true, false},
		{"a warning", slog.LevelWarn, true, true},
		{"ended badly", slog.LevelInfo, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			var stderr bytes.Buffer
			plan := mountPlan{cfg: defaultConfig(), dir: "/mnt/x"}
			out, log, err := openLog(plan, dir, true, &stderr)
			require.NoError(t, err)
			log.With("a", 1).WithGroup("g").Log(t.Context(), c.level, "before")
			out.quiet.Store(true)
			log.Info("after")
			require.Contains(t, stderr.String(), "before")
			require.NotContains(t, stderr.String(), "after")
			text, err := os.ReadFile(out.file.name)
			require.NoError(t, err)
			require.Contains(t, string(text), "before")
			require.Contains(t, string(text), "after")
			out.close(c.clean)
			_, err = os.Stat(out.file.name)
			require.Equal(t, c.stays, err == nil)
		})
	}
}

func TestCanonicalMountPoint(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(base, "a/mnt"), 0o700))
	require.NoError(t, os.Symlink("a", filepath.Join(base, "l")))
	require.NoError(t, os.Symlink("a/mnt", filepath.Join(base, "m")))
	for _, name := range []string{"a/mnt", "l/mnt", "m", "a/../a/mnt/"} {
		got, err := canonicalMountPoint(filepath.Join(base, name))
		require.NoError(t, err)
		require.Equal(t, filepath.Join(base, "a/mnt"), got, name)
	}
	got, err := canonicalMountPoint("/dev/fd/5")
	require.NoError(t, err)
	require.Equal(t, "/dev/fd/5", got)
	_, err = canonicalMountPoint(filepath.Join(base, "none/mnt"))
	require.Error(t, err)
	got, err = canonicalMountPoint("/")
	require.NoError(t, err)
	require.Equal(t, "/", got)
}

func TestDemoSearch(t *testing.T) {
	plain := []byte(strings.Repeat("0123456789abcdef", 64))
	for i := range plain {
		plain[i] += byte(i / 16)
	}
	tree := machine(t, map[string]string{"a": string(plain), "short": "x"})
	probes, err := collectProbes(tree)
	require.NoError(t, err)
	require.Len(t, probes, 1)
	files, found, err := search(tree, probes)
	require.NoError(t, err)
	require.Equal(t, []int{2, 1}, []int{files, found})

	shifted := machine(t, map[string]string{"x/y": "header" + string(plain)})
	_, found, err = search(shifted, probes)
	require.NoError(t, err)
	require.Equal(t, 1, found, "found at any offset")

	damaged := bytes.Clone(plain)
	for i := range damaged {
		damaged[i] ^= 0x55
	}
	_, found, err = search(machine(t, map[string]string{"x": string(damaged)}), probes)
	require.NoError(t, err)
	require.Zero(t, found)
}

func TestReadExports(t *testing.T) {
	r := strings.NewReader("export A=http://x:1\nexport B='a b'\nrest\n")
	env, err := readExports(r, 2)
	require.NoError(t, err)
	require.Equal(t, []string{"A=http://x:1", "B=a b"}, env)
	require.Equal(t, 5, r.Len(), "no byte more than the lines is taken")
	_, err = readExports(strings.NewReader("export A=x\n"), 2)
	require.Error(t, err)
	_, err = readExports(strings.NewReader("junk\n"), 1)
	require.Error(t, err)
}
