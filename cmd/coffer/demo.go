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
how it is protected, unmount, mount again, compare every byte, and prove that
what lies in the store's directory is not the plaintext. Each step is printed
as the command that was run and what it said. Needs fuse3 and attr.

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
	ctx  context.Context
	out  io.Writer
	dir  string
	env  []string
	self string
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
	d := &demo{ctx: ctx, out: a.stdout, dir: dir, self: self}
	stop, err := d.startEmulator()
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		// A step that failed may leave the mount; nothing below a mount
		// point may be removed while it is one.
		if _, mounted, merr := mountAt(d.path("mnt")); merr != nil || mounted {
			err = errors.Join(err, merr, d.detach())
		}
		err = errors.Join(err, stop())
		if keep {
			d.sayKept()
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
	d.title("Mount every bucket of the account; the command returns when the kernel serves")
	if err := d.run("mkdir", "mnt"); err != nil {
		return err
	}
	if err := d.run("coffer", "mount", "mnt"); err != nil {
		return err
	}
	d.title("Make a bucket: created with encryption on, and proved so, or not at all")
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
	} {
		if err := d.run(step[0], step[1:]...); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out, "no difference")
	if err := d.run("coffer", "umount", "mnt"); err != nil {
		return err
	}
	d.title("Look for the plaintext in the store's own directory")
	return d.scan(tree)
}

// title begins a step.
func (d *demo) title(text string) { fmt.Fprintf(d.out, "\n# %s\n", text) }

// shownLines bounds the output of one command that is printed.
const shownLines = 24

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
	lines := strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
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

// startEmulator runs "coffer emulator" and reads the environment that it
// prints. The returned function ends it.
func (d *demo) startEmulator() (stop func() error, err error) {
	d.title("A store of our own on loopback; any S3 endpoint will do")
	fmt.Fprintf(d.out, "$ coffer emulator --dir store\n")
	cmd := exec.Command(d.self, "emulator", "--dir", d.path("store"), "--log-level", "error")
	// A group of its own: ^C must reach the mount first, then the store.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			return err
		}
		return cmd.Wait()
	}
	env, err := readExports(pipe, 4)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("emulator: %w", err), stop())
	}
	for _, kv := range env {
		if !strings.HasPrefix(kv, "AWS_SECRET_ACCESS_KEY=") {
			fmt.Fprintln(d.out, "export "+kv)
		}
	}
	d.env = append(demoEnviron(os.Environ()), env...)
	return stop, nil
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

func (d *demo) detach() error {
	if err := detachMount(d.path("mnt")); err != nil {
		return fmt.Errorf("%s is left behind: %w", d.dir, err)
	}
	return nil
}

func (d *demo) sayKept() {
	fmt.Fprintf(d.out, "\nKept: %s (store: %s). To go on with it:\n  coffer emulator --dir %s\n", d.dir, d.path("store"), d.path("store"))
}

// The scan below uses few, but real, probes: chunks of 64 bytes from every
// file. Any of them in the store's directory is a leak.
const probeSize = 64

// scan searches the store's directory for pieces of the plaintext, after it
// has shown on the plaintext itself that the search finds them.
func (d *demo) scan(tree string) error {
	probes, err := collectProbes(d.path(tree))
	if err != nil {
		return err
	}
	files, found, err := search(d.path(tree), probes)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%d pieces of %d bytes, taken from the files; searching ./%s itself finds them in %d of its %d files\n", len(probes), probeSize, tree, found, files)
	if found == 0 {
		return errors.New("the search is blind: it does not find the plaintext in the plaintext")
	}
	files, found, err = search(d.path("store"), probes)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "searching ./store, the objects as they rest on disk, finds them in %d of its %d files\n", found, files)
	switch {
	case files == 0:
		return errors.New("the store's directory is empty: nothing was proved")
	case found > 0:
		return fmt.Errorf("PLAINTEXT rests in %d files of the store", found)
	}
	return nil
}

// collectProbes takes one piece from the middle of every file long enough.
func collectProbes(dir string) (map[[probeSize]byte]struct{}, error) {
	probes := map[[probeSize]byte]struct{}{}
	err := eachFile(dir, func(text []byte) {
		if len(text) >= 4*probeSize {
			mid := len(text) / 2
			probes[[probeSize]byte(text[mid:mid+probeSize])] = struct{}{}
		}
	})
	return probes, err
}

// search counts the files below dir, and those that hold a probe at any
// offset. Two bytes choose the candidates, so that it runs at memory speed.
func search(dir string, probes map[[probeSize]byte]struct{}) (files, found int, err error) {
	var starts [1 << 16]bool
	for p := range probes {
		starts[int(p[0])<<8|int(p[1])] = true
	}
	err = eachFile(dir, func(text []byte) {
		files++
		for i := 0; i+probeSize <= len(text); i++ {
			if !starts[int(text[i])<<8|int(text[i+1])] {
				continue
			}
			if _, ok := probes[[probeSize]byte(text[i:i+probeSize])]; ok {
				found++
				return
			}
		}
	})
	return files, found, err
}

// eachFile calls do with the content of every regular file below dir.
func eachFile(dir string, do func(text []byte)) error {
	return filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(p)
		if err == nil {
			do(text)
		}
		return err
	})
}
