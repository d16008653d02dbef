package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/storetest"

	"github.com/minio/minio-go/v7"
)

// peer is a program that mounts a bucket named "bench" in the foreground.
type peer struct {
	name string
	// command mounts the bucket at dir; home is where it may keep files.
	command func(t *testing.T, env []string, dir, home string) *exec.Cmd
	// durable: what fsync or close has returned for is in the store.
	durable bool
}

// TestPeers does the same jobs through Coffer, s3fs and rclone, one after the
// other on the same versitygw, and prints a table in Markdown. It runs where
// COFFER_PEERS=1, as "make bench-peers" sets it, and never fails for a figure.
func TestPeers(t *testing.T) {
	if os.Getenv("COFFER_PEERS") != "1" {
		t.Skip("make bench-peers runs it")
	}
	peers := []peer{
		{"Coffer", func(t *testing.T, env []string, dir, home string) *exec.Cmd {
			cmd := exec.Command(plainCoffer(t), "mount", "-f", "--allow-unencrypted", "s3://bench", dir)
			cmd.Env = append(baseEnv(t), env...)
			return cmd
		}, true},
		{"s3fs", func(t *testing.T, env []string, dir, home string) *exec.Cmd {
			passwd := filepath.Join(home, "passwd")
			must(t, os.WriteFile(passwd, []byte(envOf(env, "AWS_ACCESS_KEY_ID")+":"+envOf(env, "AWS_SECRET_ACCESS_KEY")), 0o600))
			return exec.Command("s3fs", "bench", dir, "-f", "-o", "use_path_request_style,url="+envOf(env, "AWS_ENDPOINT_URL")+",passwd_file="+passwd)
		}, true},
		{"rclone", func(t *testing.T, env []string, dir, home string) *exec.Cmd {
			cmd := exec.Command("rclone", "mount", "store:bench", dir, "--vfs-cache-mode", "off", "--config", filepath.Join(home, "none"))
			cmd.Env = append(baseEnv(t), "RCLONE_CONFIG_STORE_TYPE=s3", "RCLONE_CONFIG_STORE_PROVIDER=Other", "RCLONE_CONFIG_STORE_ENDPOINT="+envOf(env, "AWS_ENDPOINT_URL"),
				"RCLONE_CONFIG_STORE_ACCESS_KEY_ID="+envOf(env, "AWS_ACCESS_KEY_ID"), "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY="+envOf(env, "AWS_SECRET_ACCESS_KEY"))
			return cmd
		}, false}, // its fsync does nothing, and close returns before the upload
	}
	env := storetest.StartVersityGW(t).Env()
	other := client(t, env)
	other.makeBucket(t, "bench")
	type figure struct{ wall, cpu float64 }
	figures := map[string]map[string]figure{}
	var order []string
	for _, p := range peers {
		r := &peerRun{t: t, peer: p, env: env, home: t.TempDir()}
		for _, job := range peerJobs {
			if len(order) < len(peerJobs) {
				order = append(order, job.name)
				figures[job.name] = map[string]figure{}
			}
			r.start()
			before, begun := r.cpu(), time.Now()
			err := job.do(r, filepath.Join(r.dir, "d"))
			if err == nil && !p.durable && job.check != nil {
				err = job.check(other)
			}
			wall, cpu := time.Since(begun).Seconds(), r.cpu()-before
			r.stop()
			if err != nil {
				t.Logf("%s, %s: %v", p.name, job.name, err)
				continue
			}
			figures[job.name][p.name] = figure{wall, cpu}
		}
		for o := range other.c.ListObjects(t.Context(), "bench", minio.ListObjectsOptions{Recursive: true}) {
			must(t, o.Err)
			must(t, other.c.RemoveObject(t.Context(), "bench", o.Key, minio.RemoveObjectOptions{}))
		}
	}
	var out strings.Builder
	out.WriteString("\n| job |")
	for _, p := range peers {
		fmt.Fprintf(&out, " %s, s (CPU s) |", p.name)
	}
	out.WriteString(" best peer / Coffer |\n|---|" + strings.Repeat("---|", len(peers)+1) + "\n")
	for _, job := range order {
		fmt.Fprintf(&out, "| %s |", job)
		best := 0.0
		for _, p := range peers {
			f, ok := figures[job][p.name]
			if !ok {
				out.WriteString(" cannot |")
				continue
			}
			fmt.Fprintf(&out, " %.2f (%.2f) |", f.wall, f.cpu)
			if p.name != peers[0].name && (best == 0 || f.wall < best) {
				best = f.wall
			}
		}
		fmt.Fprintf(&out, " %.1f |\n", best/figures[job][peers[0].name].wall)
	}
	t.Log(out.String())
}

// peerRun is one program and its mount.
type peerRun struct {
	t    *testing.T
	peer peer
	env  []string
	home string
	dir  string
	cmd  *exec.Cmd
}

func (r *peerRun) start() {
	r.t.Helper()
	r.dir = filepath.Join(r.t.TempDir(), "mnt")
	must(r.t, os.Mkdir(r.dir, 0o755))
	r.cmd = r.peer.command(r.t, r.env, r.dir, r.home)
	log := &syncBuffer{}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(r.t, r.cmd.Start())
	r.t.Cleanup(func() { exec.Command("fusermount3", "-u", "-z", r.dir).Run() })
	for deadline := time.Now().Add(30 * time.Second); !isMountPoint(r.dir); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s does not mount\n%s", r.peer.name, log)
		}
	}
	os.MkdirAll(filepath.Join(r.dir, "d"), 0o755)
}

// isMountPoint tells whether another file system begins at dir.
func isMountPoint(dir string) bool {
	var here, above syscall.Stat_t
	return syscall.Stat(dir, &here) == nil && syscall.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

func (r *peerRun) stop() {
	r.t.Helper()
	if out, err := exec.Command("fusermount3", "-u", r.dir).CombinedOutput(); err != nil {
		r.t.Logf("%s: unmount: %v %s", r.peer.name, err, out)
		exec.Command("fusermount3", "-u", "-z", r.dir).Run()
	}
	_ = r.cmd.Wait() // its exit code says nothing here
}

func (r *peerRun) cpu() float64 {
	return (&mount{t: r.t, cmd: r.cmd}).cpu()
}

const peerFiles = 1000

// peerJobs are done in this order; each finds what those before have left, and
// a mount that has seen nothing of it.
var peerJobs = []struct {
	name  string
	do    func(r *peerRun, d string) error
	check func(independent) error // for those that are not durable: waits until the store has it
}{
	{"write 1 GiB, close", func(_ *peerRun, d string) error { return writeFile(filepath.Join(d, "big"), gib, false) }, has("d/big", gib)},
	{"read 1 GiB", func(_ *peerRun, d string) error { return readFile(filepath.Join(d, "big"), gib) }, nil},
	{"append 1 MiB to it", func(_ *peerRun, d string) error {
		return change(filepath.Join(d, "big"), os.O_WRONLY|os.O_APPEND, 1<<20, -1)
	}, has("d/big", gib+1<<20)},
	{"change 4 KiB in it", func(_ *peerRun, d string) error {
		return change(filepath.Join(d, "big"), os.O_RDWR, 4<<10, gib/2)
	}, nil},
	{"cp it", func(_ *peerRun, d string) error {
		out, err := exec.Command("cp", filepath.Join(d, "big"), filepath.Join(d, "big2")).CombinedOutput()
		return errors.Join(err, textError(out))
	}, has("d/big2", gib+1<<20)},
	{"write 1,000 x 4 KiB, fsync, 4 writers", func(_ *peerRun, d string) error {
		os.Mkdir(filepath.Join(d, "many"), 0o755)
		return eachFile(func(i int) error { return writeFile(many(d, i), 4<<10, true) })
	}, has("d/many/f999", 4<<10)},
	{"ls -l of them", func(_ *peerRun, d string) error {
		out, err := exec.Command("ls", "-l", filepath.Join(d, "many")).CombinedOutput()
		if n := strings.Count(string(out), "\n"); err == nil && n != peerFiles+1 {
			err = fmt.Errorf("%d lines", n)
		}
		return err
	}, nil},
	{"read them, 4 readers", func(_ *peerRun, d string) error {
		return eachFile(func(i int) error { return readFile(many(d, i), 4<<10) })
	}, nil},
	{"rename their directory", func(_ *peerRun, d string) error {
		return os.Rename(filepath.Join(d, "many"), filepath.Join(d, "moved"))
	}, has("d/moved/f999", 4<<10)},
	{"rm -r of them", func(_ *peerRun, d string) error {
		dir := filepath.Join(d, "moved")
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(d, "many")
		}
		out, err := exec.Command("rm", "-r", dir).CombinedOutput()
		return errors.Join(err, textError(out))
	}, nil},
}

func many(d string, i int) string { return filepath.Join(d, "many", "f"+strconv.Itoa(i)) }

func textError(out []byte) error {
	if len(out) > 0 {
		return errors.New(string(out))
	}
	return nil
}

// has waits until an object has a size.
func has(key string, size int64) func(independent) error {
	return func(i independent) error {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			o, err := i.c.StatObject(context.Background(), "bench", key, minio.StatObjectOptions{})
			if err == nil && o.Size == size {
				return nil
			}
			if err != nil && minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
				return err
			}
		}
		return fmt.Errorf("%s never came to be", key)
	}
}

func writeFile(name string, n int64, sync bool) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	p := pattern()[:min(n, 1<<20)]
	for left := n; left > 0 && err == nil; left -= int64(len(p)) {
		_, err = f.Write(p)
	}
	if sync && err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func readFile(name string, least int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err == nil && n < least {
		err = fmt.Errorf("%d bytes of %s", n, name)
	}
	return err
}

// change writes n bytes at off, or at the end with -1.
func change(name string, flags int, n int, off int64) error {
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		return err
	}
	if off < 0 {
		_, err = f.Write(pattern()[:n])
	} else {
		_, err = f.WriteAt(pattern()[:n], off)
	}
	return errors.Join(err, f.Close())
}

// eachFile does the work for all small files, by four workers.
func eachFile(work func(i int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for w := range errs {
		wg.Go(func() {
			for i := w; i < peerFiles && errs[w] == nil; i += len(errs) {
				errs[w] = work(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
