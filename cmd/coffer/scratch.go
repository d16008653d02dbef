package main

import (
	"os"
	"path/filepath"
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
