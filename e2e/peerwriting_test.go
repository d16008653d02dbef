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
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"coffer/objstore/storetest"
)

// TestPeersWriting does the same jobs through Coffer, s3fs and rclone, one after
// the other on the same versitygw, and prints a table in Markdown. It runs where
// COFFER_PEERS=1, as "make bench-peers" sets it, and never fails for a figure.
func TestPeersWriting(t *testing.T) {
	if os.Getenv("COFFER_PEERS") != "1" {
		t.Skip("make bench-peers runs it")
	}
	peers := []peer{cofferPeer, s3fsPeer, rcloneOff}
	env := storetest.StartVersityGW(t).Env()
	other := client(t, env)
	other.makeBucket(t, "bench")
	warm(t, env, "bench", 6)
	type figure struct{ wall, cpu, mib float64 }
	figures := map[string]map[string]figure{}
	var order []string
	for _, p := range peers {
		r := &peerRun{t: t, peer: p, env: env, home: t.TempDir()}
		for _, job := range peerJobs {
			if len(order) < len(peerJobs) {
				order = append(order, job.name)
				figures[job.name] = map[string]figure{}
			}
			must(t, r.start())
			os.MkdirAll(filepath.Join(r.dir, "d"), 0o755)
			before, begun := r.cpu(), time.Now()
			err := job.do(r, filepath.Join(r.dir, "d"))
			if err == nil && !p.durable && job.check != nil {
				err = job.check(other)
			}
			f := figure{time.Since(begun).Seconds(), r.cpu() - before, r.peak()}
			r.stop()
			if err != nil {
				t.Logf("%s, %s: %v", p.name, job.name, err)
				continue
			}
			t.Logf("%s, %s: %.2f s, %.2f CPU s, %.0f MiB", p.name, job.name, f.wall, f.cpu, f.mib)
			figures[job.name][p.name] = f
		}
		for o := range other.c.ListObjects(t.Context(), "bench", minio.ListObjectsOptions{Recursive: true}) {
			must(t, o.Err)
			must(t, other.c.RemoveObject(t.Context(), "bench", o.Key, minio.RemoveObjectOptions{}))
		}
	}
	begun := time.Now()
	must(t, bareUpload(env, "bench", "bare", gib))
	bare := time.Since(begun).Seconds()
	var out strings.Builder
	out.WriteString("\n| job |")
	for _, p := range peers {
		fmt.Fprintf(&out, " %s |", p.name)
	}
	out.WriteString(" best peer / Coffer | CPU |\n|---|" + strings.Repeat("---|", len(peers)+2) + "\n")
	for _, job := range order {
		fmt.Fprintf(&out, "| %s |", job)
		var wall, cpu float64 // of the fastest peer
		for _, p := range peers {
			f, ok := figures[job][p.name]
			if !ok {
				out.WriteString(" cannot |")
				continue
			}
			fmt.Fprintf(&out, " %.2f (%.2f, %.0f) |", f.wall, f.cpu, f.mib)
			if p.name != peers[0].name && (wall == 0 || f.wall < wall) {
				wall, cpu = f.wall, f.cpu
			}
		}
		own := figures[job][peers[0].name]
		fmt.Fprintf(&out, " %.1f | %.1f |\n", wall/own.wall, cpu/own.cpu)
	}
	fmt.Fprintf(&out, "\nThe bare SDK uploads 1 GiB in %.2f s.\n", bare)
	t.Log(out.String())
}

const peerFiles = 10_000

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
	{"write 10,000 x 4 KiB, fsync, 1 writer", func(_ *peerRun, d string) error {
		return eachFile(d, "alone", 1, func(name string) error { return writeFile(name, 4<<10, true) })
	}, has("d/alone/f9999", 4<<10)},
	{"write 10,000 x 4 KiB, fsync, 8 writers", func(_ *peerRun, d string) error {
		return eachFile(d, "many", 8, func(name string) error { return writeFile(name, 4<<10, true) })
	}, has("d/many/f9999", 4<<10)},
	{"write 10,000 x 100 KiB, fsync, 1 writer", func(_ *peerRun, d string) error {
		return eachFile(d, "mediumalone", 1, func(name string) error { return writeFile(name, 100<<10, true) })
	}, has("d/mediumalone/f9999", 100<<10)},
	{"write 10,000 x 100 KiB, fsync, 8 writers", func(_ *peerRun, d string) error {
		return eachFile(d, "medium", 8, func(name string) error { return writeFile(name, 100<<10, true) })
	}, has("d/medium/f9999", 100<<10)},
	{"ls -l of 10,000", func(_ *peerRun, d string) error {
		out, err := exec.Command("ls", "-l", filepath.Join(d, "many")).CombinedOutput()
		if n := strings.Count(string(out), "\n"); err == nil && n != peerFiles+1 {
			err = fmt.Errorf("%d lines", n)
		}
		return err
	}, nil},
	{"read 10,000 x 4 KiB, 8 readers", func(_ *peerRun, d string) error {
		return eachFile(d, "many", 8, func(name string) error { return readFile(name, 4<<10) })
	}, nil},
	{"rename a directory of 10,000", func(_ *peerRun, d string) error {
		return os.Rename(filepath.Join(d, "many"), filepath.Join(d, "moved"))
	}, has("d/moved/f9999", 4<<10)},
	{"rm -r of 10,000", func(_ *peerRun, d string) error { return runIn(d, "rm", "-r", "alone") }, nil},
	{"untar the Go sources", func(r *peerRun, d string) error {
		return runIn(d, "sh", "-c", "tar -C '"+filepath.Dir(goSources(r.t))+"' -cf - src | tar -xf -")
	}, nil},
	{"rm -r of them", func(_ *peerRun, d string) error { return runIn(d, "rm", "-r", "src") }, nil},
}

// runIn runs a program in d, which must have nothing to say.
func runIn(d, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = d
	out, err := cmd.CombinedOutput()
	return errors.Join(err, textError(out))
}

func textError(out []byte) error {
	if len(out) > 0 {
		return fmt.Errorf("%.300s", out)
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

// eachFile does the work for all small files of a directory, which is made, by
// some workers.
func eachFile(d, dir string, workers int, work func(name string) error) error {
	dir = filepath.Join(d, dir)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range errs {
		wg.Go(func() {
			for i := w; i < peerFiles && errs[w] == nil; i += len(errs) {
				errs[w] = work(filepath.Join(dir, "f"+strconv.Itoa(i)))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
