package main

import (
	"context"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const mountLong = `Mount every bucket of the account, one bucket, or the objects of one bucket
below a prefix, as a file system on the directory MOUNTPOINT.

The command returns when the kernel serves the mount, and leaves a daemon
behind that outlives the shell and the job step. Credentials and endpoint are
checked first, with one request. With --foreground it stays instead, and ends
on SIGTERM or SIGINT: it writes to the store what is still to be written, says
what could not be, and unmounts. A second signal forces the unmount.

MOUNTPOINT is an empty directory (-o nonempty lifts that), or /dev/fd/N for a
FUSE device that a container runtime has opened; this form never detaches. A
dead mount of Coffer, left by a daemon that was killed, is replaced.

New buckets and objects are encrypted on the store's side, and that is proved
before the first byte of data leaves. Into a bucket that does not encrypt,
creating a file fails with "Permission denied" and one line in the log says
why; --allow-unencrypted permits it.

Every setting below can come, in order of precedence, from a flag (or its -o
form), from the environment as COFFER_NAME (COFFER_ENDPOINT_URL), or from the
YAML config file under the flag's name (endpoint-url: ...). The config file
can also choose the encryption by bucket and prefix:

  encryption:
    - match: "scratch-*"        # bucket, with wildcards
      sse: none
      allow-unencrypted: true
    - match: "results/final/"   # bucket/prefix of keys; the first match wins
      sse: aes256

A detached mount without --log-file keeps a small log beside its control
socket in $XDG_RUNTIME_DIR/coffer or /tmp/coffer-UID; coffer status names it.`

const mountExample = `  coffer mount ~/s3
  coffer mount s3://dataset /mnt --read-only
  coffer mount --endpoint-url https://s3.example.org --profile hpc s3://b/results ./results
  mount -t fuse.coffer s3://dataset /mnt -o ro,allow_other,profile=hpc
  # /etc/fstab:
  s3://dataset  /mnt  fuse.coffer  _netdev,ro,allow_other,endpoint_url=https://s3.example.org  0 0`

// newMount builds "coffer mount".
func newMount(a *app) *cobra.Command {
	var scratch Config
	var foreground, fake bool
	var options []string
	cmd := &cobra.Command{
		Use:     "mount [flags] [s3://BUCKET[/PREFIX]] MOUNTPOINT",
		Short:   "Mount all buckets, one bucket or a prefix",
		Long:    mountLong + "\n\n" + exitCodeHelp,
		Example: mountExample,
		Args:    argCount(1, 2, "[s3://BUCKET[/PREFIX]] MOUNTPOINT"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			det, err := detachedFromEnv()
			if err != nil {
				return err
			}
			plan, err := a.planMount(cmd, args, options)
			if err == nil && fake {
				return nil
			}
			if det != nil {
				if err == nil {
					err = a.serve(plan, det)
				}
				if err != nil {
					_ = det.report(err)
					return &exitError{code: exitCode(err)}
				}
				return nil
			}
			if err != nil {
				return err
			}
			if _, inherited := inheritedFD(plan.dir); foreground || inherited {
				return a.serve(plan, nil)
			}
			ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer cancel()
			_, err = startDetached(ctx, append([]string{"mount"}, mountArgs(cmd, plan, options)...), os.Stderr, false)
			return err
		},
	}
	scratch = defaultConfig()
	bindFlags(cmd.Flags(), &scratch, everyGroup...)
	cmd.Flags().BoolVarP(&foreground, "foreground", "f", false, "stay in the foreground and log to stderr; for systemd (Type=notify), containers and debugging")
	cmd.Flags().StringArrayVarP(&options, "options", "o", nil, "mount `options` as in fstab, separated by commas: the names of flags with _ or -, and those of mount(8)")
	cmd.Flags().BoolVar(&fake, "fake", false, "check the settings and mount nothing, as mount -f does")
	_ = cmd.Flags().MarkHidden("fake")
	return cmd
}

// planMount resolves the settings and arguments of a mount.
func (a *app) planMount(cmd *cobra.Command, args []string, options []string) (mountPlan, error) {
	var plan mountPlan
	opts, kernel, err := parseMountOptions(strings.Join(options, ","))
	if err != nil {
		return plan, &exitError{exitUsage, err}
	}
	plan.kernel = kernel
	if plan.cfg, err = resolveConfig(cmd.Flags(), a.env, opts); err != nil {
		return plan, err
	}
	dir := args[len(args)-1]
	if len(args) == 2 {
		if plan.src, err = parseSource(args[0]); err != nil {
			return plan, &exitError{exitUsage, err}
		}
	} else if strings.HasPrefix(dir, "s3://") {
		return plan, usageErrorf("%s needs a mount point: coffer mount %s DIRECTORY", dir, dir)
	}
	plan.dir, err = canonicalMountPoint(dir)
	return plan, err
}

// mountArgs returns the arguments with which another process of this program
// makes the same plan: what was said on the command line, and nothing that
// came from the environment or a file, which it reads itself.
func mountArgs(cmd *cobra.Command, plan mountPlan, options []string) []string {
	args := settingArgs(cmd.Flags())
	for _, o := range options {
		args = append(args, "-o", o)
	}
	return append(args, "--", plan.src.String(), plan.dir)
}
