package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

// runIn executes a command line and returns code, stdout and stderr. The
// machine's config files have no part in it.
func runIn(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	t.Setenv("COFFER_CONFIG", os.DevNull)
	var out, errOut bytes.Buffer
	code := run(append([]string{"coffer"}, args...), strings.NewReader(""), &out, &errOut)
	return code, out.String(), errOut.String()
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ args, want string }{
		{"bogus", `unknown command "bogus"`},
		{"mont", "did you mean \"mount\""},
		{"mount", "wanted: [s3://BUCKET"},
		{"mount a b c", "wanted: [s3://BUCKET"},
		{"mount s3://b", "needs a mount point"},
		{"mount b " + dir, "does not start with s3://"},
		{"mount --no-such-flag " + dir, "unknown flag"},
		{"mount --sse des " + dir, "not one of auto, aes256, kms, kms-dsse, customer, none"},
		{"mount -o bogus " + dir, `unknown mount option "bogus"`},
		{"mount --config /no/such " + dir, "no such file"},
		{"mount --endpoint-url http://s3.example.org " + dir + " -f", "plain http"},
		{"run s3://b", "no command"},
		{"run s3://b --", "no command"},
		{"run a b c -- true", "before --"},
		{"run s3://b /dev/fd/3 -- true", "needs a directory"},
		{"mb", "wanted: s3://NAME"},
		{"mb b", "does not start with s3://"},
		{"mb s3://b/p", "not of the form s3://BUCKET"},
		{"umount", "wanted: MOUNTPOINT"},
		{"emulator", "--dir is needed"},
		{"version x", "wanted: nothing"},
	} {
		t.Run(c.args, func(t *testing.T) {
			code, out, errOut := runIn(t, strings.Fields(c.args)...)
			require.Equal(t, exitUsage, code, errOut)
			require.Empty(t, out)
			require.Contains(t, errOut, c.want)
			require.True(t, strings.HasPrefix(errOut, "coffer: "), errOut)
		})
	}
}

func TestFailuresBeforeMounting(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for args, want := range map[string]string{
		"umount " + dir:              "nothing is mounted there",
		"status " + dir:              "no daemon answers",
		"umount " + dir + "/no/such": "no such file",
		"mount -f " + dir:            "is not empty (it holds \"file\")",
		"mount -f " + dir + "/file":  "is not a directory",
		"mount -f " + dir + "/none":  "no such file",
		"mount -f /dev/fd/987":       "no such descriptor",
	} {
		code, _, errOut := runIn(t, strings.Fields(args)...)
		require.Equal(t, exitFailure, code, args)
		require.Contains(t, errOut, want, args)
		require.Equal(t, 1, strings.Count(errOut, "\n"), "one clear line: %s", errOut)
	}
}

func TestFakeMountChecksSettingsOnly(t *testing.T) {
	code, _, errOut := runIn(t, "mount", "--fake", "s3://b", t.TempDir(), "-o", "ro,_netdev")
	require.Zero(t, code, errOut)
	code, _, _ = runIn(t, "mount", "--fake", "s3://b", t.TempDir(), "-o", "rx")
	require.Equal(t, exitUsage, code)
}

func TestExitCodes(t *testing.T) {
	kind := func(k objstore.Kind) error { return fmt.Errorf("x: %w", &objstore.Error{Op: "get", Kind: k}) }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailure},
		{kind(objstore.NotExist), exitFailure},
		{kind(objstore.Exist), exitFailure},
		{kind(objstore.Permission), exitPermission},
		{kind(objstore.Expired), exitPermission},
		{kind(objstore.Unavailable), exitUnavailable},
		{kind(objstore.Throttled), exitUnavailable},
		{kind(objstore.Unencrypted), exitUnencrypted},
		{kind(objstore.InvalidName), exitUsage},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), exitUnavailable},
		{usageErrorf("x"), exitUsage},
		{&exitError{code: 42}, 42},
	} {
		require.Equal(t, c.want, exitCode(c.err), "%v", c.err)
	}
}

func TestCommandEnd(t *testing.T) {
	a := &app{env: os.LookupEnv, stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 128 + 15, `test "$COFFER_MNT" = /mnt/x`: 0} {
		require.Equal(t, want, exitCode(a.supervise("/mnt/x", []string{"sh", "-c", script}, nil)), script)
	}
	require.Equal(t, exitNoSuchExec, exitCode(a.supervise("/", []string{"/no/such/program"}, nil)))
	require.Equal(t, exitNoSuchExec, exitCode(a.supervise("/", []string{"coffer-no-such-program"}, nil)))
	require.Equal(t, exitCannotExec, exitCode(a.supervise("/", []string{t.TempDir()}, nil)))
}

// eachCommand calls do with every subcommand that a user sees.
func eachCommand(do func(*cobra.Command)) {
	root := newRoot(&app{env: os.LookupEnv, stdout: io.Discard, stderr: io.Discard})
	for _, c := range root.Commands() {
		if c.Name() != "help" && c.Name() != "completion" {
			do(c)
		}
	}
}

func TestHelpOfEveryCommand(t *testing.T) {
	_, overview, _ := runIn(t, "help")
	eachCommand(func(c *cobra.Command) {
		require.Contains(t, overview, "\n  "+c.Name()+" ", "the overview lists it")
		code, out, _ := runIn(t, c.Name(), "--help")
		require.Zero(t, code)
		require.Contains(t, out, c.Long, "what it does")
		require.Contains(t, out, "Usage:\n  coffer "+c.Name())
		if c.Name() != "version" {
			require.Contains(t, out, "\nExamples:\n  ", c.Name())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				require.Contains(t, out, "--"+f.Name, c.Name())
				require.NotEmpty(t, f.Usage)
			}
		})
		for line := range strings.Lines(out) {
			require.LessOrEqual(t, len([]rune(line)), helpWidth+1, "%s: %s", c.Name(), line)
		}
	})
	_, out, _ := runIn(t, "mount", "--help")
	for _, g := range everyGroup {
		require.Contains(t, out, "\n"+g+":\n")
	}
	code, out, _ := runIn(t, "help", "mount")
	require.Zero(t, code)
	require.Contains(t, out, mountLong)
}

// The README documents every command as "coffer NAME" and every flag as
// `--name`.
func TestEveryFlagIsInTheREADME(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	readme := string(text)
	var missing []string
	eachCommand(func(c *cobra.Command) {
		if !strings.Contains(readme, "coffer "+c.Name()) {
			missing = append(missing, "coffer "+c.Name())
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" && !strings.Contains(readme, "`--"+f.Name) {
				missing = append(missing, "coffer "+c.Name()+" --"+f.Name)
			}
		})
	})
	require.Empty(t, missing)
}

func TestSettingsStayFew(t *testing.T) {
	names := map[string]bool{}
	eachCommand(func(c *cobra.Command) {
		if c.Name() == "mount" {
			c.Flags().VisitAll(func(f *pflag.Flag) { names[f.Name] = true })
		}
	})
	require.LessOrEqual(t, len(names), 35)
}

// A detached process must be started with no more than what was typed:
// what came from the environment may be secret, and it reads that itself.
func TestMountArgs(t *testing.T) {
	t.Setenv("COFFER_REGION", "from-env")
	a := &app{env: os.LookupEnv}
	cmd := newMount(a)
	dir := t.TempDir()
	require.NoError(t, cmd.ParseFlags([]string{"--profile", "p", "--read-only", "--uid=7", "--umask", "077", "--memory=1G", "--metadata-ttl=5s", "s3://b/x", dir}))
	plan, err := a.planMount(cmd, cmd.Flags().Args(), []string{"allow_other"})
	require.NoError(t, err)
	require.Equal(t, "from-env", plan.cfg.Region)
	args := mountArgs(cmd, plan, []string{"allow_other"})
	require.NotContains(t, strings.Join(args, " "), "from-env")

	again := newMount(a)
	require.NoError(t, again.ParseFlags(args))
	same, err := a.planMount(again, again.Flags().Args(), []string{"allow_other"})
	require.NoError(t, err)
	require.Equal(t, plan, same)
	require.Equal(t, []string{"s3://b/x", dir}, again.Flags().Args())
}

func TestVersion(t *testing.T) {
	code, out, _ := runIn(t, "version")
	require.Zero(t, code)
	require.Regexp(t, `^coffer \S+\n`, out)
	require.Contains(t, out, "go1.")
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		code, out, _ := runIn(t, "completion", shell)
		require.Zero(t, code)
		require.Contains(t, out, "coffer")
	}
}
