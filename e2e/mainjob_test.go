package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/storetest"

	"github.com/minio/minio-go/v7"
)

// mainJob is what users do: mount, make a bucket, copy a real tree and a file
// of more than 1 GiB in, unmount, mount again, and find everything as it was.
// What then lies in the bucket is checked by another program's eyes.
type mainJob struct {
	name string
	// env starts the store; dir is where it may keep its data.
	env  func(t testing.TB, dir string) []string
	args []string
	mode string // what getfattr shows
	key  []byte // of SSE-C
	// printable: the store takes no control characters in keys.
	printable bool
	tree      string
	copy      string
}

func server(start func(testing.TB) *storetest.Server) func(testing.TB, string) []string {
	return func(t testing.TB, _ string) []string { return start(t).Env() }
}

// TestMainJob copies the whole of the Go toolchain's sources (more than 10,000
// files) to the emulator; a third of them, the commands, to the real servers:
// they have the same code on our side, and together more would take minutes.
func TestMainJob(t *testing.T) {
	goSrc := goSources(t)
	for _, job := range []mainJob{
		{name: "emulator", env: emulatorProcess("aws"), mode: "SSE-S3",
			tree: goSrc, copy: `cd "$SRC" && ls -A | xargs -P 4 -I{} cp -a {} "$DST/"`},
		{name: "minio", env: server(storetest.StartMinIO), mode: "SSE-S3",
			tree: filepath.Join(goSrc, "cmd"), copy: `cp -a "$SRC/." "$DST/"`},
		{name: "versitygw", env: server(storetest.StartVersityGW), args: []string{"--allow-unencrypted"}, mode: "none",
			tree: filepath.Join(goSrc, "cmd"), copy: `tar -C "$SRC" -cf - . | tar -C "$DST" -xpf -`},
	} {
		t.Run(job.name, job.run)
	}
}

// TestMainJobInEveryMode does the main job, with a smaller tree, in each mode
// that a server has besides those of TestMainJob.
func TestMainJobInEveryMode(t *testing.T) {
	tree := filepath.Join(goSources(t), "cmd", "compile")
	keyFile, _ := customerKeyFile(t)
	text, err := os.ReadFile(keyFile)
	must(t, err)
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	must(t, err)
	customer := []string{"--sse", "customer", "--sse-customer-key-file", keyFile}
	for _, job := range []mainJob{
		{name: "emulator SSE-KMS", env: emulatorProcess("aws"), args: []string{"--sse", "kms"}, mode: "SSE-KMS"},
		{name: "emulator DSSE-KMS", env: emulatorProcess("aws"), args: []string{"--sse", "kms-dsse"}, mode: "DSSE-KMS"},
		{name: "emulator SSE-C", env: emulatorProcess("aws", "--tls"), args: customer, mode: "SSE-C", key: key},
		{name: "scality SSE-S3", env: emulatorProcess("scality"), mode: "SSE-S3", printable: true},
		{name: "scality SSE-KMS", env: emulatorProcess("scality"), args: []string{"--sse", "kms"}, mode: "SSE-KMS", printable: true},
		{name: "scality74 SSE-S3", env: emulatorProcess("scality74"), mode: "SSE-S3", printable: true},
		{name: "minio SSE-KMS", env: server(storetest.StartMinIO), args: []string{"--sse", "kms", "--sse-kms-key-id", "demo-key"}, mode: "SSE-KMS"},
		{name: "minio SSE-C", env: server(storetest.StartMinIOTLS), args: customer, mode: "SSE-C", key: key},
		{name: "radosgw SSE-KMS", env: server(storetest.StartRadosGW), args: []string{"--sse", "kms", "--sse-kms-key-id", "demo-key"}, mode: "SSE-KMS"},
		{name: "radosgw SSE-C", env: server(storetest.StartRadosGW), args: customer, mode: "SSE-C", key: key},
	} {
		job.tree, job.copy = tree, `cp -a "$SRC/." "$DST/"`
		t.Run(job.name, job.run)
	}
}

func (job mainJob) run(t *testing.T) {
	dir := filepath.Join(storetest.DataDir(t), "store")
	m := mountWith(t, plainCoffer(t), job.env(t, dir), job.args...)
	must(t, os.Mkdir(m.path("dataset"), 0o755))
	must(t, os.Mkdir(m.path("dataset", "tree"), 0o755))
	must(t, os.Mkdir(m.path("dataset", "odd"), 0o755))
	odd := oddTree(t)
	if job.printable {
		must(t, os.Remove(filepath.Join(odd, "new\nline")))
	}
	big, err := sharedBigFile()
	must(t, err)

	timed(t, "tree in", func() { shell(t, nil, job.copy, job.tree, m.path("dataset", "tree")) })
	timed(t, "big file in", func() { shell(t, nil, `cp "$SRC" "$DST"`, big, m.path("dataset", "big")) })
	shell(t, nil, `cp -a "$SRC/." "$DST/"`, odd, m.path("dataset", "odd"))
	for _, name := range []string{"big", "tree", "odd/empty"} {
		if got := xattr(t, m.path("dataset", name), "user.s3.encryption"); got != encryption(t, job.mode) {
			t.Errorf("user.s3.encryption of %s is %q, want %q", name, got, encryption(t, job.mode))
		}
	}
	m.stop()
	m.start(job.args...)
	timed(t, "diff of the tree", func() { shell(t, nil, `diff -r "$SRC" "$DST"`, job.tree, m.path("dataset", "tree")) })
	timed(t, "big file out", func() { shell(t, nil, `cmp "$SRC" "$DST"`, big, m.path("dataset", "big")) })
	shell(t, nil, `diff -r --no-dereference "$SRC" "$DST"`, odd, m.path("dataset", "odd"))
	sameAttributes(t, job.tree, m.path("dataset", "tree"))
	sameAttributes(t, odd, m.path("dataset", "odd"))
	m.stop()
	timed(t, "check by another client", func() {
		other := client(t, m.env)
		if job.key != nil {
			if _, err := other.sum("dataset", "big"); err == nil {
				t.Error("another client reads the big file without its key")
			}
			if other = other.withCustomerKey(t, job.key); other.sse == nil {
				t.Log("that client shows no customer key over plain http")
				return
			}
		}
		other.compareTree(t, "dataset", "tree/", job.tree)
		other.compareTree(t, "dataset", "odd/", odd)
		other.compareFile(t, "dataset", "big", big)
	})
	if job.name == "emulator" {
		timed(t, "scan of what is at rest", func() { scanMainJob(t, dir, job.tree, big) })
	}
}

// scanMainJob looks for the main job's plaintext in the emulator's directory:
// three times 16 MiB of the big file, and of the tree's commands every window
// with the end of a line inside. Others could be parts of a path, and keys of
// objects are no secret.
func scanMainJob(t testing.TB, dir, tree, big string) {
	t.Helper()
	var w windows
	f, err := os.Open(big)
	must(t, err)
	defer f.Close()
	st, err := f.Stat()
	must(t, err)
	const piece = 16 << 20
	buf := make([]byte, piece)
	for _, off := range []int64{0, st.Size() / 2 / windowBytes * windowBytes, st.Size() - piece} {
		_, err := f.ReadAt(buf, off)
		must(t, err)
		w.add(buf, nil)
	}
	must(t, filepath.WalkDir(filepath.Join(tree, "cmd"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		w.add(data, func(b []byte) bool { return bytes.IndexByte(b, '\n') >= 0 })
		return err
	}))
	w.wantNone(t, "the server's directory", dir)
}

// emulatorProcess runs "coffer emulator" and returns what it says to export.
func emulatorProcess(dialect string, args ...string) func(t testing.TB, dir string) []string {
	return func(t testing.TB, dir string) []string {
		t.Helper()
		return runEmulator(t, append([]string{"--dir", dir, "--dialect", dialect}, args...))
	}
}

func runEmulator(t testing.TB, args []string) []string {
	t.Helper()
	cmd := exec.Command(plainCoffer(t), append([]string{"emulator"}, args...)...)
	cmd.Env = baseEnv(t)
	log := &syncBuffer{}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("the emulator ended: %v\n%s", err, lastLines(log.String(), 20))
		}
	})
	var env []string
	want := 5
	if slices.Contains(args, "--tls") {
		want++
	}
	for lines := bufio.NewScanner(out); len(env) < want; {
		if !lines.Scan() {
			t.Fatalf("the emulator said only %q\n%s", env, log)
		}
		v, ok := strings.CutPrefix(lines.Text(), "export ")
		if !ok {
			t.Fatalf("the emulator printed %q", lines.Text())
		}
		name, value, _ := strings.Cut(v, "=")
		env = append(env, name+"="+strings.Trim(value, "'"))
	}
	return env
}

// TestMainJobOnOtherDialects copies 500 files in and out of the emulator where
// it does not encrypt, and where it encrypts in another way than AWS.
func TestMainJobOnOtherDialects(t *testing.T) {
	src := t.TempDir()
	for i := range 500 {
		dir := filepath.Join(src, fmt.Sprintf("d%d", i%10))
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), random(t, i*17), 0o644))
	}
	for dialect, args := range map[string][]string{
		"liar": {"--allow-unencrypted"}, "nosse": {"--allow-unencrypted"}, "minio": nil, "scality": nil, "scality74": nil,
	} {
		t.Run(dialect, func(t *testing.T) {
			m := mountStore(t, startEmulator(t, dialect).Env(), args...)
			must(t, os.Mkdir(m.path("dataset"), 0o755))
			shell(t, nil, `cp -a "$SRC/." "$DST/"`, src, m.path("dataset"))
			m.stop()
			m.start(args...)
			shell(t, nil, `diff -r "$SRC" "$DST"`, src, m.path("dataset"))
			sameAttributes(t, src, m.path("dataset"))
			m.stop()
			client(t, m.env).compareTree(t, "dataset", "", src)
		})
	}
}

// timed logs how long a step took; the figures are for a reader with -v.
func timed(t testing.TB, what string, f func()) {
	t.Helper()
	start := time.Now()
	f()
	t.Logf("%s: %.1f s", what, time.Since(start).Seconds())
}

// shell runs a script with SRC and DST in its environment, by a user where
// prepare sets one, and fails the test when the script does or prints anything
// unexpected.
func shell(t testing.TB, prepare func(*exec.Cmd), script, src, dst string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "set -e; "+script)
	cmd.Env = append(os.Environ(), "SRC="+src, "DST="+dst, "LC_ALL=C.UTF-8")
	if prepare != nil {
		prepare(cmd)
	}
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%s (SRC=%s DST=%s): %v\n%s", script, src, dst, err, lastLines(string(out), 20))
	}
}

// oddTree makes a small tree of what a source tree does not have.
func oddTree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string]string{
		"empty": "", "with space": "1", "plus+per%cent&amp": "2", "ünï-日本語": "3", "-dash": "4", ".hidden": "5",
		"new\nline": "6", "back\\slash": "7", "quote'\"": "8", "sub/dir/deep/file": "9", strings.Repeat("n", 200): "10",
	} {
		p := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		must(t, os.WriteFile(p, []byte(data), 0o640))
	}
	must(t, os.Mkdir(filepath.Join(dir, "empty-dir"), 0o750))
	must(t, os.Chmod(filepath.Join(dir, "empty"), 0o755))
	must(t, os.Symlink("sub/dir", filepath.Join(dir, "link")))
	must(t, os.Symlink("nowhere at all", filepath.Join(dir, "dangling")))
	old := time.Date(2001, 2, 3, 4, 5, 6, 789_000_000, time.UTC)
	must(t, os.Chtimes(filepath.Join(dir, "with space"), old, old))
	return dir
}

// sharedBigFile makes a file of more than 1 GiB that does not compress, once in a
// run.
var sharedBigFile = sync.OnceValues(func() (string, error) {
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "big")
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	const n = 1<<30 + 4097
	_, err = io.CopyBuffer(f, io.LimitReader(mathrand.NewChaCha8([32]byte{}), n), make([]byte, 1<<20))
	return name, errors.Join(err, f.Close())
})

// sameAttributes compares type, permissions, time and size below two places.
// Sizes of directories and link counts mean nothing in a store.
func sameAttributes(t testing.TB, src, dst string) {
	t.Helper()
	bad := 0
	must(t, filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, p)
		if err != nil || rel == "." {
			return err // the top was made by mkdir, not copied
		}
		a, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.Lstat(filepath.Join(dst, rel))
		if err != nil {
			return err
		}
		same := a.Mode() == b.Mode() && (a.IsDir() || a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()))
		if !same {
			if bad++; bad <= 10 {
				t.Errorf("%s: %v %v %d, want %v %v %d", rel, b.Mode(), b.ModTime(), b.Size(), a.Mode(), a.ModTime(), a.Size())
			}
		}
		return nil
	}))
	if bad > 10 {
		t.Errorf("%d files differ in their attributes", bad)
	}
}

// compareTree checks that the objects below prefix are the files of dir, byte
// for byte, and no others. Keys that end in a slash stand for directories.
func (i independent) compareTree(t testing.TB, bucket, prefix, dir string) {
	t.Helper()
	sizes := map[string]int64{}
	for o := range i.c.ListObjects(context.Background(), bucket, minio.ListObjectsOptions{Recursive: true, Prefix: prefix}) {
		must(t, o.Err)
		if !strings.HasSuffix(o.Key, "/") {
			sizes[strings.TrimPrefix(o.Key, prefix)] = i.size(o.Key, o.Size)
		}
	}
	var names []string
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p) // both begin alike
			names = append(names, rel)
		}
		return err
	}))
	if len(names) != len(sizes) {
		t.Errorf("%d objects below %q, want the %d files of %s", len(sizes), prefix, len(names), dir)
	}
	var wg sync.WaitGroup
	next := make(chan string)
	for range 8 {
		wg.Go(func() {
			for name := range next {
				p := filepath.Join(dir, name)
				data, err := os.ReadFile(p)
				if target, lerr := os.Readlink(p); lerr == nil {
					data, err = []byte(target), nil // a link's object holds its target
				}
				if err != nil {
					t.Error(err)
					continue
				}
				size, ok := sizes[name]
				if !ok || size != int64(len(data)) {
					t.Errorf("object %q: listed %v with %d bytes, want %d", prefix+name, ok, size, len(data))
					continue
				}
				sum, err := i.sum(bucket, prefix+name)
				if err != nil || sum != sha256.Sum256(data) {
					t.Errorf("object %q does not hold the bytes of the file (%v)", prefix+name, err)
				}
			}
		})
	}
	for _, name := range names {
		next <- name
	}
	close(next)
	wg.Wait()
}

// compareFile checks one large object.
func (i independent) compareFile(t testing.TB, bucket, key, name string) {
	t.Helper()
	f, err := os.Open(name)
	must(t, err)
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	must(t, err)
	sum, err := i.sum(bucket, key)
	if err != nil || sum != [32]byte(h.Sum(nil)) {
		t.Errorf("object %q does not hold the bytes of the file (%v)", key, err)
	}
}

// sum returns the SHA-256 of an object.
func (i independent) sum(bucket, key string) (sum [32]byte, err error) {
	o, err := i.c.GetObject(context.Background(), bucket, key, minio.GetObjectOptions{ServerSideEncryption: i.sse})
	if err != nil {
		return sum, err
	}
	defer o.Close()
	h := sha256.New()
	if err := i.decrypt(key, h, o); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}
