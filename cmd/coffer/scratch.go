package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

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

// rescueDir names the directory, below a scratch directory, for what a mount may
// leave behind: data that could not be stored, and notes of uploads under way.
func rescueDir(scratch string) string {
	return filepath.Join(scratch, "coffer-rescue-"+strconv.Itoa(os.Getuid()))
}

// makeRescueDir makes it, if it is absent; see trustDir.
func makeRescueDir(scratch string) (string, error) {
	dir := rescueDir(scratch)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := trustDir(dir, os.Getuid()); err != nil {
		return "", err
	}
	return dir, nil
}
