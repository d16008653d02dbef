package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"coffer/objstore/storetest"
)

// The benchmarks mount versitygw, which stores plain files and so costs the
// least of the real servers; client, daemon and server share the machine.
// daemon-s/GiB and daemon-s/file are CPU seconds of the daemon alone.

// benchMount is a mount with one bucket, on a server with its data in memory.
func benchMount(b *testing.B) *mount {
	b.Helper()
	s := storetest.StartVersityGW(b)
	m := mountStore(b, s.Env(), "--allow-unencrypted")
	must(b, os.Mkdir(m.path("bench"), 0o755))
	return m
}

// cpu returns the CPU seconds of the daemon so far.
func (m *mount) cpu() float64 {
	m.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	must(m.t, err)
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	user, err := strconv.ParseFloat(f[11], 64)
	must(m.t, err)
	system, err := strconv.ParseFloat(f[12], 64)
	must(m.t, err)
	return (user + system) / 100 // USER_HZ
}

// peakRSS returns the most memory that the daemon has had, in MiB.
func (m *mount) peakRSS() float64 {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	must(m.t, err)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kib, err := strconv.ParseFloat(f[1], 64)
			must(m.t, err)
			return kib / 1024
		}
	}
	return 0
}

const gib = 1 << 30

// pattern is 1 MiB that differs from page to page.
func pattern() []byte {
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i>>12) ^ byte(i)
	}
	return p
}

func writeGiB(b *testing.B, path string) {
	b.Helper()
	f, err := os.Create(path)
	must(b, err)
	p := pattern()
	for range gib / len(p) {
		_, err := f.Write(p)
		must(b, err)
	}
	must(b, f.Close())
}

func BenchmarkStreamWrite1GiB(b *testing.B) {
	m := benchMount(b)
	warm(b, m.env, "bench", 2)
	b.SetBytes(gib)
	before := m.cpu()
	for b.Loop() {
		writeGiB(b, m.path("bench", "big"))
	}
	b.ReportMetric((m.cpu()-before)/float64(b.N), "daemon-s/GiB")
	b.ReportMetric(m.peakRSS(), "peak-MiB")
}

// BenchmarkBareUpload1GiB is what a stream is measured by: the SDK with parts as
// long and as many at a time as Coffer's, and nothing else.
func BenchmarkBareUpload1GiB(b *testing.B) {
	env := storetest.StartVersityGW(b).Env()
	client(b, env).makeBucket(b, "bench")
	warm(b, env, "bench", 2)
	b.SetBytes(gib)
	for b.Loop() {
		must(b, bareUpload(env, "bench", "big", gib))
	}
}

// BenchmarkStreamWrite8GiB is for the memory that a long stream takes. The
// server's data are on disk, where versitygw finds no room for the list of so
// many parts.
func BenchmarkStreamWrite8GiB(b *testing.B) {
	b.Setenv("COFFER_DATA_DIR", os.TempDir())
	m := mountStore(b, storetest.StartMinIO(b).Env())
	must(b, os.Mkdir(m.path("bench"), 0o755))
	b.SetBytes(8 * gib)
	before := m.cpu()
	for b.Loop() {
		must(b, writeFile(m.path("bench", "big"), 8*gib, false))
	}
	b.ReportMetric((m.cpu()-before)/float64(8*b.N), "daemon-s/GiB")
	b.ReportMetric(m.peakRSS(), "peak-MiB")
}

// afresh begins a round with a new daemon and a new mount: nothing is cached.
func (m *mount) afresh(b *testing.B, args ...string) {
	b.Helper()
	b.StopTimer()
	m.stop()
	m.start(append([]string{"--allow-unencrypted"}, args...)...)
	b.StartTimer()
}

// filledMount is a mount of a bucket that the SDK has put objects into.
func filledMount(b *testing.B, set string) (*mount, *bench) {
	b.Helper()
	env := storetest.StartVersityGW(b).Env()
	filled := newBench(b, env, env)
	filled.load(b, set)
	return mountStore(b, env, "--allow-unencrypted"), filled
}

// BenchmarkColdRead1GiB has the limits beside it, in turns in the same run: a
// daemon of constant data and the SDK alone. of-constant and of-bare are
// Coffer's speed by theirs.
func BenchmarkColdRead1GiB(b *testing.B) {
	m, filled := filledMount(b, "one")
	b.SetBytes(gib)
	var used, constant, bare float64
	for b.Loop() {
		m.afresh(b)
		must(b, readFile(m.path("bench", "data", "one"), gib))
		used += m.cpu()
		b.StopTimer()
		constant += constantRead(b, m, "one", gib, false)
		begun := time.Now()
		must(b, bareDownload(filled.env, "bench", "data/one", gib))
		bare += time.Since(begun).Seconds()
		b.StartTimer()
	}
	b.ReportMetric(used/float64(b.N), "daemon-s/GiB")
	b.ReportMetric(m.peakRSS(), "peak-MiB")
	b.ReportMetric(constant/b.Elapsed().Seconds(), "of-constant")
	b.ReportMetric(bare/b.Elapsed().Seconds(), "of-bare")
}

// constantRead reads a file through a daemon of constant data, with a mount's
// read-ahead, and returns the seconds; the file can have been read before.
func constantRead(b *testing.B, like *mount, name string, size int64, again bool) float64 {
	b.Helper()
	r := &peerRun{t: b, peer: constantPeer, home: b.TempDir()}
	must(b, r.start())
	defer r.stop()
	from, err := bdiReadAhead(like.dir)
	must(b, err)
	kib, err := os.ReadFile(from)
	must(b, err)
	to, err := bdiReadAhead(r.dir)
	must(b, err)
	if err := os.WriteFile(to, kib, 0); err != nil {
		b.Logf("the constant mount keeps its own read-ahead: %v", err)
	}
	if again {
		must(b, readAndForget(r))
	}
	begun := time.Now()
	must(b, readFile(filepath.Join(r.dir, "data", name), size))
	return time.Since(begun).Seconds()
}

// BenchmarkMemoryRead1GiB reads what the daemon has in memory and the kernel
// has forgotten.
func BenchmarkMemoryRead1GiB(b *testing.B) {
	m, _ := filledMount(b, "one")
	b.SetBytes(gib)
	var used, constant float64
	for b.Loop() {
		m.afresh(b, "--memory", "2G")
		b.StopTimer()
		must(b, readAndForget(&peerRun{t: b, dir: m.path("bench")}))
		before := m.cpu()
		b.StartTimer()
		must(b, readFile(m.path("bench", "data", "one"), gib))
		b.StopTimer()
		used += m.cpu() - before
		constant += constantRead(b, m, "one", gib, true)
		b.StartTimer()
	}
	b.ReportMetric(used/float64(b.N), "daemon-s/GiB")
	b.ReportMetric(constant/b.Elapsed().Seconds(), "of-constant")
}

// BenchmarkClientSide1GiB writes and reads without encryption on this side and with it,
// in turns. write-of-plain and read-of-plain are the speed with it by that without.
func BenchmarkClientSide1GiB(b *testing.B) {
	s, ring := storetest.StartVersityGW(b), keyringFile(b)
	m := mountStore(b, s.Env(), "--allow-unencrypted")
	must(b, os.Mkdir(m.path("bench"), 0o755))
	warm(b, m.env, "bench", 2)
	var write, read, used [2]float64
	for b.Loop() {
		for k, args := range [][]string{nil, {"--cse-keyring", ring}} {
			file := m.path("bench", fmt.Sprint("big", k))
			m.afresh(b, args...)
			begun := time.Now()
			writeGiB(b, file)
			write[k] += time.Since(begun).Seconds()
			used[k] += m.cpu()
			m.afresh(b, args...)
			begun = time.Now()
			must(b, readFile(file, gib))
			read[k] += time.Since(begun).Seconds()
			used[k] += m.cpu()
		}
	}
	b.ReportMetric(write[0]/write[1], "write-of-plain")
	b.ReportMetric(read[0]/read[1], "read-of-plain")
	b.ReportMetric(used[0]/float64(2*b.N), "plain-daemon-s/GiB")
	b.ReportMetric(used[1]/float64(2*b.N), "daemon-s/GiB")
}

// BenchmarkRandomRead reads 4 KiB at 200 places of 4 GiB.
func BenchmarkRandomRead(b *testing.B) {
	const reads = 200
	s := storetest.StartVersityGW(b)
	l := startLink(b, s.Endpoint, 0, 0)
	newBench(b, s.Env(), s.Env()).load(b, "four")
	m := mountStore(b, l.env(s.Env()), "--allow-unencrypted")
	var used float64
	var requests, body int64
	for b.Loop() {
		m.afresh(b)
		b.StopTimer()
		_, err := os.Stat(m.path("bench", "data", "four"))
		must(b, err)
		l.reset()
		before := m.cpu()
		b.StartTimer()
		must(b, randomReads(reads, 4<<10)(&peerRun{t: b, dir: m.path("bench")}))
		used += m.cpu() - before
		requests += l.requests.Load()
		body += l.body.Load()
	}
	n := float64(reads * b.N)
	b.ReportMetric(n/b.Elapsed().Seconds(), "reads/s")
	b.ReportMetric(1e6*used/n, "daemon-us/read")
	b.ReportMetric(float64(requests)/n, "requests/read")
	b.ReportMetric(float64(body)/1024/n, "body-KiB/read")
}

// BenchmarkReadSmallFiles reads 2,000 files of 4 KiB with 8 readers.
func BenchmarkReadSmallFiles(b *testing.B) {
	const files = 2000
	m, filled := filledMount(b, "")
	must(b, barePuts(filled.env, "bench", files, 4<<10, flatName("small")))
	job := smallFiles("", files, 4<<10, 8)
	var used float64
	for b.Loop() {
		m.afresh(b)
		must(b, job.do(&peerRun{t: b, dir: m.path("bench")}))
		used += m.cpu()
	}
	b.ReportMetric(files*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	b.ReportMetric(1e6*used/float64(files*b.N), "daemon-us/file")
}

// BenchmarkListing lists 20,000 names: with attributes as the listing tells
// them, and by find, in 200 directories.
func BenchmarkListing(b *testing.B) {
	const names = 20_000
	env := storetest.StartVersityGW(b).Env()
	client(b, env).makeBucket(b, "bench")
	must(b, barePuts(env, "bench", names, 1, flatName("many")))
	must(b, barePuts(env, "bench", names, 1, treeName))
	m := mountStore(b, env, "--allow-unencrypted")
	for _, job := range []struct {
		name string
		do   func(*peerRun) error
	}{
		{"ls -l", lines(names+1, "ls", "-l", "many")},
		{"find", lines(names, "find", "tree", "-type", "f")},
	} {
		b.Run(job.name, func(b *testing.B) {
			var used float64
			for b.Loop() {
				m.afresh(b, "--attributes", "list")
				must(b, job.do(&peerRun{t: b, dir: m.path("bench")}))
				used += m.cpu()
			}
			b.ReportMetric(names*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(1e6*used/float64(names*b.N), "daemon-us/entry")
		})
	}
}

// BenchmarkSmallFiles writes, then reads, 1,000 files of 4 KiB with 4 workers.
func BenchmarkSmallFiles(b *testing.B) {
	const files, workers, size = 1000, 4, 4 << 10
	each := func(work func(i int)) {
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := w; i < files; i += workers {
					work(i)
				}
			})
		}
		wg.Wait()
	}
	b.Run("write-fsync", func(b *testing.B) {
		m := benchMount(b)
		data := pattern()[:size]
		before, round := m.cpu(), 0
		for b.Loop() {
			dir := m.path("bench", fmt.Sprint(round))
			round++
			must(b, os.Mkdir(dir, 0o755))
			each(func(i int) {
				f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
				if err == nil {
					_, err = f.Write(data)
				}
				if err == nil {
					err = f.Sync()
				}
				if err == nil {
					err = f.Close()
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		b.ReportMetric(float64(files*b.N)/b.Elapsed().Seconds(), "files/s")
		b.ReportMetric(1e6*(m.cpu()-before)/float64(files*b.N), "daemon-us/file")
	})
	b.Run("read", func(b *testing.B) {
		m := benchMount(b)
		data := pattern()[:size]
		must(b, os.Mkdir(m.path("bench", "d"), 0o755))
		each(func(i int) {
			if err := os.WriteFile(m.path("bench", "d", fmt.Sprint(i)), data, 0o644); err != nil {
				b.Error(err)
			}
		})
		var used float64
		for b.Loop() {
			b.StopTimer()
			m.stop()
			m.start("--allow-unencrypted")
			b.StartTimer()
			each(func(i int) {
				got, err := os.ReadFile(m.path("bench", "d", fmt.Sprint(i)))
				if err != nil || len(got) != size {
					b.Errorf("%d bytes, %v", len(got), err)
				}
			})
			used += m.cpu()
		}
		b.ReportMetric(float64(files*b.N)/b.Elapsed().Seconds(), "files/s")
		b.ReportMetric(1e6*used/float64(files*b.N), "daemon-us/file")
	})
}

// BenchmarkExclusiveCreate makes empty lock files: by which call it is decided
// who has made one costs a request or not.
func BenchmarkExclusiveCreate(b *testing.B) {
	for _, when := range []string{"close", "open"} {
		b.Run(when, func(b *testing.B) {
			s := startEmulator(b, "aws")
			m := mountStore(b, s.Env(), "--exclusive", when)
			must(b, os.Mkdir(m.path("bench"), 0o755))
			before, asked, i := m.cpu(), len(s.Requests()), 0
			for b.Loop() {
				f, err := os.OpenFile(m.path("bench", fmt.Sprint(i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
				must(b, err)
				_, err = f.WriteString("mine")
				must(b, err)
				must(b, f.Close())
				i++
			}
			b.ReportMetric(1e6*(m.cpu()-before)/float64(b.N), "daemon-us/file")
			b.ReportMetric(float64(len(s.Requests())-asked)/float64(b.N), "requests/file")
		})
	}
}
