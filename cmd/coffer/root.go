package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is what the subcommands know of the process they run in.
type app struct {
	env    environ
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// run executes one command line and returns the exit code.
func run(argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{env: os.LookupEnv, stdin: stdin, stdout: stdout, stderr: stderr}
	args, err := commandLine(argv)
	var cmd *cobra.Command
	if err == nil {
		root := newRoot(a)
		root.SetArgs(args)
		cmd, err = root.ExecuteC()
	}
	code := exitCode(err)
	var e *exitError
	if err == nil || (errors.As(err, &e) && e.err == nil) {
		return code
	}
	fmt.Fprintf(stderr, "coffer: %s\n", strings.TrimSpace(err.Error()))
	if e != nil && code == exitUsage && cmd != nil {
		fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// commandLine turns argv into the arguments of the root command. Besides
// subcommands there are the forms in which mount(8) calls a file system: as
// mount.coffer or mount.fuse.coffer, or by mount.fuse as "coffer SOURCE DIR".
func commandLine(argv []string) ([]string, error) {
	args := argv[1:]
	switch filepath.Base(argv[0]) {
	case "mount.coffer", "mount.fuse.coffer":
		return helperArgs(args)
	case createEncryptedName:
		return append([]string{createEncryptedName}, args...), nil
	}
	if len(args) > 0 && strings.HasPrefix(args[0], "s3://") {
		return append([]string{"mount"}, args...), nil
	}
	return args, nil
}

// helperArgs translates the arguments of a helper of mount(8):
// SOURCE DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE].
func helperArgs(args []string) ([]string, error) {
	out := []string{"mount"}
	var names []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-o" || a == "-t" || a == "-N":
			if i++; i == len(args) {
				return nil, usageErrorf("%s needs a value", a)
			}
			if a == "-o" {
				out = append(out, "-o", args[i])
			} else if a == "-N" {
				return nil, usageErrorf("mounting into another name space is not supported; enter it with nsenter(1)")
			}
		case a == "-f":
			// mount --fake: everything but the mount itself.
			out = append(out, "--fake")
		case len(a) > 1 && a[0] == '-' && strings.Trim(a[1:], "snv") == "":
			// Tolerance, no mtab, verbosity: nothing to do.
		case strings.HasPrefix(a, "-"):
			return nil, usageErrorf("unknown option %s of a mount helper", a)
		default:
			names = append(names, a)
		}
	}
	if len(names) != 2 {
		return nil, usageErrorf("a mount helper takes a source and a mount point")
	}
	if names[0] == "none" || names[0] == "coffer" {
		names[0] = "s3://"
	}
	return append(append(out, "--"), names...), nil
}

const rootLong = `Coffer mounts encrypted S3 buckets as a file system. Directories at the root
are buckets, files are objects. A bucket made with mkdir is created with
server-side encryption on and checked to be so; getfattr tells how any file is
protected; data that would rest in plaintext is refused unless allowed by name.

Credentials come from where the AWS tools look: environment variables, the
files in ~/.aws, web identity, the instance's or container's role.`

const rootExample = `  coffer mount ~/s3                        every bucket below ~/s3
  mkdir ~/s3/dataset-s0001                 a new bucket, encrypted and proved so
  getfattr -d ~/s3/dataset-s0001/file      how a file is protected
  coffer umount ~/s3                       flush, and unmount

  coffer run s3://dataset -- sh -c 'ls -l "$COFFER_MNT"'
  coffer check s3://dataset                what the endpoint honours`

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "coffer",
		Short:         "Mount encrypted S3 buckets as a file system",
		Long:          rootLong + "\n\n" + exitCodeHelp,
		Example:       rootExample,
		SilenceErrors: true,
		// Names within this edit distance are suggested.
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
				return usageErrorf("unknown command %q; did you mean %q?", args[0], s[0])
			}
			return usageErrorf("unknown command %q", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} })
	root.SetUsageFunc(usage)
	root.AddGroup(
		&cobra.Group{ID: "mount", Title: "Mounts:"},
		&cobra.Group{ID: "store", Title: "Buckets and endpoints:"},
		&cobra.Group{ID: "more", Title: "More:"},
	)
	root.SetHelpCommandGroupID("more")
	root.SetCompletionCommandGroupID("more")
	for _, sub := range []struct {
		group string
		cmd   *cobra.Command
	}{
		{"mount", newMount(a)}, {"mount", newUmount(a)}, {"mount", newRun(a)}, {"mount", newStatus(a)}, {"mount", newRescue(a)},
		{"store", newMB(a)}, {"store", newCreateEncrypted(a)}, {"store", newCheck(a)}, {"store", newVerify(a)}, {"store", newEmulator(a)},
		{"more", newKeyring(a)}, {"more", newEncryptFile(a)}, {"more", newDecrypt(a)}, {"more", newDemo(a)}, {"more", newVersion(a)},
	} {
		sub.cmd.GroupID = sub.group
		sub.cmd.DisableFlagsInUseLine = true
		root.AddCommand(sub.cmd)
	}
	return root
}

// usage prints the part of the help text that follows the description:
// synopsis, subcommands and the flags by group.
func usage(cmd *cobra.Command) error {
	w := cmd.OutOrStderr()
	fmt.Fprint(w, "Usage:\n")
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "  %s COMMAND [flags]\n", cmd.CommandPath())
	} else {
		for line := range strings.Lines(cmd.UseLine()) {
			fmt.Fprintf(w, "  %s", line)
		}
		fmt.Fprintln(w)
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	for _, g := range cmd.Groups() {
		fmt.Fprintf(w, "\n%s\n", g.Title)
		for _, c := range cmd.Commands() {
			if c.GroupID == g.ID && (c.IsAvailableCommand() || c.Name() == "help") {
				fmt.Fprintf(w, "  %-12s %s\n", c.Name(), c.Short)
			}
		}
	}
	printFlags(w, cmd.LocalFlags())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\n%s COMMAND --help tells more.\n", cmd.CommandPath())
	}
	return nil
}

// helpWidth is the width of the flags' text: a terminal's, and a page's.
const helpWidth = 100

func printFlags(w io.Writer, all *pflag.FlagSet) {
	groups := map[string]*pflag.FlagSet{}
	all.VisitAll(func(f *pflag.Flag) {
		name := groupProcess
		if g := f.Annotations[groupAnnotation]; len(g) > 0 {
			name = g[0]
		}
		if groups[name] == nil {
			groups[name] = pflag.NewFlagSet(name, pflag.ContinueOnError)
			groups[name].SortFlags = false
		}
		groups[name].AddFlag(f)
	})
	for _, name := range append([]string{groupProcess}, everyGroup...) {
		if g := groups[name]; g != nil && g.HasAvailableFlags() {
			title := name
			if len(groups) == 1 {
				title = "Flags"
			}
			fmt.Fprintf(w, "\n%s:\n%s", title, g.FlagUsagesWrapped(helpWidth))
		}
	}
}

// argCount makes a check of the number of arguments whose failure is a usage
// error that says what is wanted.
func argCount(least, most int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageErrorf("%d arguments given; wanted: %s", len(args), want)
		}
		return nil
	}
}
