package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const demoLong = `Show the main job on real files: start a store on loopback, mount it with this
program, make a bucket with mkdir, copy a tree in, list it, ask with getfattr
how it is protected, unmount, mount again and compare every byte. Then the same
with a store that does not encrypt: it is refused, until it is allowed by name.
Last, both stores' directories are searched for the plaintext, which must be
found in the second and not in the first. Each step is printed as the command
that was run and what it said. Needs fuse3 and attr.

Fails if any step fails or does not show what it must. Everything is removed
at the end unless --keep is given.`

// newDemo builds "coffer demo".
func newDemo(a *app) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:     "demo [--keep]",
		Short:   "Show it all on a store of its own",
		Long:    demoLong,
		Example: "  coffer demo\n  coffer demo --keep",
		Args:    argCount(0, 0, "nothing"),
		RunE: func(*cobra.Command, []string) error {
			ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer cancel()
			ctx, cancelTimeout := context.WithTimeout(ctx, 5*time.Minute)
			defer cancelTimeout()
			return a.demo(ctx, keep)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the store's directory and its keys behind, and say how to mount it")
	return cmd
}

// demo is one run: a working directory, the environment that leads to the
// store, and what has to be taken down.
type demo struct {
	ctx         context.Context
	out, errOut io.Writer
	dir, self   string
	// env leads to the store that was started last; stops end them all.
	env   []string
	stops []func() error
}

func (a *app) demo(ctx context.Context, keep bool) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := demoNeeds(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "coffer-demo-")
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, out: a.stdout, errOut: a.stderr, dir: dir, self: self}
	defer func() {
		err = errors.Join(err, d.takeDown())
		if keep {
			fmt.Fprintf(d.out, "\nKept in %s. To go on with the store:\n  coffer emulator --dir %s\n", d.dir, d.path("store"))
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	began := time.Now()
	if err := d.steps(); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nAll steps passed in %.1f s.\n", time.Since(began).Seconds())
	return nil
}

// takeDown ends what a step that failed may have left: the mount first, since
// nothing below a mount point may be removed while it is one.
func (d *demo) takeDown() error {
	var errs []error
	if _, mounted, err := mountAt(d.path("mnt")); err != nil || mounted {
		errs = append(errs, err, detachMount(d.path("mnt")))
	}
	for _, stop := range d.stops {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// demoLog is the log of the demo's mounts.
const demoLog = "coffer.log"

// demoNeeds names the programs that are missing.
func demoNeeds() error {
	var missing []string
	for prog, pkg := range map[string]string{"fusermount3": "fuse3", "getfattr": "attr", "cp": "coreutils", "diff": "diffutils"} {
		if _, err := exec.LookPath(prog); err != nil {
			missing = append(missing, fmt.Sprintf("%s (package %s)", prog, pkg))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the demo needs %s", strings.Join(missing, ", "))
	}
	return nil
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

// steps is the demonstration itself.
func (d *demo) steps() error {
	tree, err := d.prepareTree()
	if err != nil {
		return err
	}
	if err := d.run("mkdir", "mnt"); err != nil {
		return err
	}
	if err := d.encryptedStore(tree); err != nil {
		return err
	}
	if err := d.plainStore(tree); err != nil {
		return err
	}
	d.title("Look for the plaintext where the two stores keep their objects")
	return d.scan(tree, "store", "plain-store")
}

// encryptedStore shows the main job.
func (d *demo) encryptedStore(tree string) error {
	d.title("A store of our own on loopback; any S3 endpoint will do")
	if err := d.startEmulator("store", "aws"); err != nil {
		return err
	}
	d.title("Mount every bucket of the account; the command returns when the kernel serves")
	if err := d.run("coffer", "mount", "mnt"); err != nil {
		return err
	}
	d.title("Make a bucket: created with encryption on and proved so, or not at all")
	if err := d.run("mkdir", "mnt/dataset-s0001"); err != nil {
		return err
	}
	d.title("Copy real files in")
	if err := d.run("cp", "-r", tree, "mnt/dataset-s0001/"); err != nil {
		return err
	}
	if err := d.run("ls", "-l", "mnt/dataset-s0001/"+tree); err != nil {
		return err
	}
	d.title("Ask how a file is protected, and what new files of the bucket will get")
	for _, name := range []string{"mnt/dataset-s0001/" + tree + "/" + d.sample(tree), "mnt/dataset-s0001"} {
		if err := d.expect([]string{`user.s3.encryption="SSE-S3"`, `user.s3.sse="AES256"`}, "getfattr", "-d", name); err != nil {
			return err
		}
	}
	d.title("Unmount: returns when everything is in the store. Mount again, compare every byte")
	for _, step := range [][]string{
		{"coffer", "umount", "mnt"},
		{"coffer", "mount", "s3://dataset-s0001", "mnt", "--read-only"},
		{"diff", "-r", tree, "mnt/" + tree},
		{"coffer", "umount", "mnt"},
	} {
		if err := d.run(step[0], step[1:]...); err != nil {
			return err
		}
		if step[0] == "diff" {
			fmt.Fprintln(d.out, "(no difference)")
		}
	}
	return nil
}

// plainStore shows that a store without encryption is refused unless allowed
// by name, and leaves the files there in plaintext, for the search to find.
func (d *demo) plainStore(tree string) error {
	d.title("Another store, which does not encrypt: nothing is written there")
	if err := d.startEmulator("plain-store", "nosse"); err != nil {
		return err
	}
	if err := d.run("coffer", "mb", "--allow-unencrypted", "s3://scratch-data"); err != nil {
		return err
	}
	if err := d.run("coffer", "mount", "mnt"); err != nil {
		return err
	}
	for _, step := range [][]string{
		{"mkdir", "mnt/dataset-s0002"},
		{"cp", tree + "/" + d.sample(tree), "mnt/scratch-data/"},
	} {
		if err := d.refused("Permission denied", step[0], step[1:]...); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out, "The log tells why, and what to do:")
	if err := d.run("grep", "-v", "level=INFO", demoLog); err != nil {
		return err
	}
	d.title("Allowed by name, it is written, and says what it is")
	for _, step := range [][]string{
		{"coffer", "umount", "mnt"},
		{"coffer", "mount", "--allow-unencrypted", "s3://scratch-data", "mnt"},
		{"cp", "-r", tree, "mnt/"},
	} {
		if err := d.run(step[0], step[1:]...); err != nil {
			return err
		}
	}
	if err := d.expect([]string{`user.s3.encryption="none"`}, "getfattr", "-n", "user.s3.encryption", "mnt/"+tree+"/"+d.sample(tree)); err != nil {
		return err
	}
	return d.run("coffer", "umount", "mnt")
}

// title begins a step.
func (d *demo) title(text string) { fmt.Fprintf(d.out, "\n# %s\n", text) }

// shownLines bounds the output of one command that is printed.
const shownLines = 12

// run prints a command line and what it says, and fails when it does.
func (d *demo) run(name string, args ...string) error {
	_, err := d.output(name, args...)
	return err
}

// expect is run that also demands lines of the output.
func (d *demo) expect(lines []string, name string, args ...string) error {
	out, err := d.output(name, args...)
	if err != nil {
		return err
	}
	for _, want := range lines {
		if !strings.Contains("\n"+out, "\n"+want+"\n") {
			return fmt.Errorf("%s %s did not show %s", name, strings.Join(args, " "), want)
		}
	}
	return nil
}

// refused runs a command that must fail with this text.
func (d *demo) refused(want, name string, args ...string) error {
	out, err := d.output(name, args...)
	if err == nil {
		return fmt.Errorf("%s %s was not refused", name, strings.Join(args, " "))
	}
	if !strings.Contains(out, want) {
		return fmt.Errorf("%w; wanted %q", err, want)
	}
	return nil
}

// output runs one command line and prints the first lines of what it says.
func (d *demo) output(name string, args ...string) (string, error) {
	fmt.Fprintf(d.out, "$ %s %s\n", name, strings.Join(args, " "))
	prog := name
	if name == "coffer" {
		prog = d.self
	}
	cmd := exec.CommandContext(d.ctx, prog, args...)
	cmd.Dir, cmd.Env = d.dir, d.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	lines := strings.SplitAfter(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) > shownLines {
		rest := len(lines) - shownLines
		lines = append(lines[:shownLines], fmt.Sprintf("... and %d lines more", rest))
	}
	if out.Len() > 0 {
		fmt.Fprintln(d.out, strings.Join(lines, ""))
	}
	if err != nil {
		return out.String(), fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out.String(), nil
}

// startEmulator runs "coffer emulator" until takeDown, and reads the
// environment that it prints.
func (d *demo) startEmulator(dir, dialect string) error {
	fmt.Fprintf(d.out, "$ coffer emulator --dir %s --dialect %s\n", dir, dialect)
	cmd := exec.Command(d.self, "emulator", "--dir", d.path(dir), "--dialect", dialect, "--log-level", "error")
	// A group of its own: ^C must reach the mount first, then the store.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Stderr, cmd.Env = d.errOut, demoEnviron(os.Environ())
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.stops = append(d.stops, func() error {
		return errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait())
	})
	env, err := readExports(pipe, 4)
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	for _, kv := range env {
		if name, _, _ := strings.Cut(kv, "="); name == "AWS_SECRET_ACCESS_KEY" {
			kv = name + "=(not shown)"
		}
		fmt.Fprintln(d.out, "export "+kv)
	}
	d.env = append(demoEnviron(os.Environ()), env...)
	d.env = append(d.env, envName("log-file")+"="+d.path(demoLog))
	return nil
}

// readExports reads n lines "export NAME=VALUE".
func readExports(r io.Reader, n int) ([]string, error) {
	var env []string
	var line []byte
	for one := make([]byte, 1); len(env) < n; {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, fmt.Errorf("ended before it listened: %w", err)
		}
		if one[0] != '\n' {
			line = append(line, one[0])
			continue
		}
		kv, ok := strings.CutPrefix(string(line), "export ")
		if !ok {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		name, value, _ := strings.Cut(kv, "=")
		env = append(env, name+"="+strings.Trim(value, "'"))
		line = line[:0]
	}
	return env, nil
}

// demoEnviron drops what would lead the demo to the user's real store.
func demoEnviron(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "AWS_") && !strings.HasPrefix(kv, "COFFER_") {
			kept = append(kept, kv)
		}
	}
	return append(kept, "COFFER_CONFIG="+os.DevNull, "LC_ALL=C.UTF-8", "AWS_CONFIG_FILE="+os.DevNull, "AWS_SHARED_CREDENTIALS_FILE="+os.DevNull)
}

// prepareTree copies real files of this machine beside the mount, and returns
// the tree's name: the sources of the net package, or documentation.
func (d *demo) prepareTree() (string, error) {
	for _, from := range demoSources() {
		if st, err := os.Stat(from); err != nil || !st.IsDir() {
			continue
		}
		d.title("Real files: " + from)
		name := filepath.Base(from)
		// Links are followed: the comparison is about bytes.
		if err := d.run("cp", "-rL", from, name); err != nil {
			return "", err
		}
		if err := d.run("du", "-sh", "--apparent-size", name); err != nil {
			return "", err
		}
		return name, nil
	}
	return "", errors.New("found no real files to work with: neither Go's sources nor /usr/share/doc nor /etc/ssl")
}

func demoSources() []string {
	var list []string
	if root := os.Getenv("GOROOT"); root != "" {
		list = append(list, filepath.Join(root, "src/net"))
	}
	if goTool, err := exec.LookPath("go"); err == nil {
		if out, err := exec.Command(goTool, "env", "GOROOT").Output(); err == nil {
			list = append(list, filepath.Join(strings.TrimSpace(string(out)), "src/net"))
		}
	}
	return append(list, "/usr/local/go/src/net", "/usr/lib/go/src/net", "/usr/share/doc/coreutils", "/usr/share/doc/fuse3", "/etc/ssl")
}

// sample returns the largest file at the top of the tree.
func (d *demo) sample(tree string) string {
	entries, _ := os.ReadDir(d.path(tree))
	name, size := "", int64(-1)
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && st.Size() > size {
			name, size = e.Name(), st.Size()
		}
	}
	return name
}
