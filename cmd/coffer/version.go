package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is stamped by the Makefile with -ldflags -X; a build without it
// takes what the Go tool knows.
var version = ""

// versionString returns the version in one word.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// shownModules are the libraries that decide how Coffer behaves.
var shownModules = map[string]bool{
	"github.com/hanwen/go-fuse/v2": true, "github.com/aws/aws-sdk-go-v2/service/s3": true, "github.com/dgraph-io/ristretto/v2": true,
}

func newVersion(*app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version, commit and libraries",
		Long:  "Print the version of Coffer, the commit and Go version it was built from, and\nthe versions of the libraries that matter most.",
		Args:  argCount(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "coffer %s\n", versionString())
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return nil
			}
			settings := map[string]string{}
			for _, s := range info.Settings {
				settings[s.Key] = s.Value
			}
			if rev := settings["vcs.revision"]; rev != "" {
				dirty := ""
				if settings["vcs.modified"] == "true" {
					dirty = ", with local changes"
				}
				fmt.Fprintf(w, "commit %s of %s%s\n", rev, settings["vcs.time"], dirty)
			}
			fmt.Fprintf(w, "%s %s/%s\n", info.GoVersion, runtime.GOOS, runtime.GOARCH)
			for _, m := range info.Deps {
				if shownModules[m.Path] {
					fmt.Fprintf(w, "%s %s\n", m.Path, m.Version)
				}
			}
			return nil
		},
	}
}
