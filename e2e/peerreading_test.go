package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sys/unix"

	"coffer/objstore/storetest"
)

// Limits of the comparison: a job that takes longer is given up, one that
// takes long is done once.
const (
	peerTimeout = 120 * time.Second
	peerLong    = 20 * time.Second
)

// bareName is a column that is no mount.
const bareName = "bare SDK"

// TestPeersReading does jobs of reading through Coffer and its peers, in turns
// on the same server, and beside them by the SDK alone and through a daemon of
// constant data. It prints a table in Markdown and writes the plot. It runs
// where COFFER_PEERS=1, as "make bench-peers-read" sets it, and never fails for
// a figure. COFFER_PEERS_JOBS is a regular expression of "server: job",
// COFFER_PEERS_ROUNDS how often each is done (3).
//
// What is read was put by the SDK, not through a mount. Each job has a new
// mount, and so an empty page cache; programs that keep files get a new, empty
// directory for them.
func TestPeersReading(t *testing.T) {
	if os.Getenv("COFFER_PEERS") != "1" {
		t.Skip("make bench-peers-read runs it")
	}
	rounds, err := strconv.Atoi(cmp.Or(os.Getenv("COFFER_PEERS_ROUNDS"), "3"))
	must(t, err)
	chosen, err := regexp.Compile(os.Getenv("COFFER_PEERS_JOBS"))
	must(t, err)
	peers := []peer{cofferPeer, s3fsPeer, rcloneOff, rcloneFull}
	if _, err := os.Stat(filepath.Join(os.Getenv("COFFER_TOOLS_DIR"), "tigrisfs")); err == nil {
		peers = append(peers, tigrisPeer)
	} else {
		t.Log("WITHOUT tigrisfs, which .ci/setup could not build")
	}
	peers = append(peers, constantPeer, peer{name: bareName})
	var columns []string
	for _, p := range peers {
		columns = append(columns, p.name)
	}
	limits := []string{constantPeer.name, bareName}
	help, err := exec.Command(plainCoffer(t), "mount", "--help").Output()
	must(t, err)

	var rows []row
	for _, site := range peerSites {
		jobs := slices.Clone(readJobs)
		jobs = slices.DeleteFunc(jobs, func(j readJob) bool {
			return !slices.Contains(strings.Fields(j.sites), site.word) || !chosen.MatchString(site.word+": "+j.name) ||
				!strings.Contains(string(help), j.needs)
		})
		if len(jobs) == 0 {
			continue
		}
		t.Run(site.word, func(t *testing.T) {
			b := site.start(t)
			for _, job := range jobs {
				r := row{name: site.name + ": " + job.name, unit: job.unit, amount: job.amount, cells: map[string]figure{}, notes: map[string]string{}}
				b.load(t, job.set)
				figures := map[string][]figure{}
				for round := range rounds {
					for _, p := range peers {
						if !job.hasColumn(p.name) || round > 0 && figures[p.name][0].finished() {
							continue
						}
						f := b.measure(t, p, job)
						figures[p.name] = append(figures[p.name], f)
						t.Logf("%s, %s: %.3f s, %.2f CPU s, %.0f MiB %s", r.name, p.name, f.wall, f.cpu, f.mib, f.problem)
					}
				}
				for name, all := range figures {
					r.cells[name] = median(all)
				}
				if job.counted {
					for _, p := range peers {
						if f, done := r.cells[p.name]; done && !slices.Contains(limits, p.name) && !f.finished() {
							r.notes[p.name] = b.count(t, p, job)
						}
					}
				}
				rows = append(rows, r)
			}
		})
	}
	t.Log("\n\n" + markdownTable(rows, columns, limits))
	if os.Getenv("COFFER_PEERS_JOBS") != "" {
		return // the plot is of the whole
	}
	plot, err := os.Create("bench-read.svg")
	must(t, err)
	must(t, writePlot(plot, rows, columns))
	must(t, plot.Close())
}

// finished tells that one round is enough.
func (f figure) finished() bool {
	return f.problem != "" || f.wall > peerLong.Seconds()
}

// peerSites are servers, and ways to them.
var peerSites = []struct {
	word  string
	name  string
	start func(t *testing.T) *bench
}{
	{"versitygw", "versitygw", func(t *testing.T) *bench {
		env := storetest.StartVersityGW(t).Env()
		return newBench(t, env, env)
	}},
	{"slow", "20 ms, 100 MB/s a connection", func(t *testing.T) *bench {
		s := storetest.StartVersityGW(t)
		return newBench(t, s.Env(), startLink(t, s.Endpoint, 20*time.Millisecond, 100e6).env(s.Env()))
	}},
	{"minio", "minio", func(t *testing.T) *bench {
		env := storetest.StartMinIO(t).Env()
		return newBench(t, env, env)
	}},
	{"https", "minio, https", func(t *testing.T) *bench {
		env := storetest.StartMinIOTLS(t).Env()
		return newBench(t, env, env)
	}},
}

// bench is a server with a bucket that is being read.
type bench struct {
	direct []string // of the server, by which it is filled
	env    []string // of who reads
	loaded map[string]bool
	// readAhead is Coffer's mount's, which the constant daemon's gets.
	readAhead string
}

func newBench(t testing.TB, direct, env []string) *bench {
	client(t, direct).makeBucket(t, "bench")
	return &bench{direct: direct, env: env, loaded: map[string]bool{}}
}

// load puts a set of objects, once.
func (b *bench) load(t testing.TB, set string) {
	t.Helper()
	if b.loaded[set] {
		return
	}
	b.loaded[set] = true
	switch set {
	case "":
	case "one":
		must(t, bareUpload(b.direct, "bench", "data/one", gib))
	case "four":
		must(t, bareUpload(b.direct, "bench", "data/four", 4*gib))
	case "parallel":
		for i := range 4 {
			must(t, bareUpload(b.direct, "bench", fmt.Sprint("data/p", i), gib/4))
		}
	case "small":
		must(t, barePuts(b.direct, "bench", 10_000, 4<<10, flatName("small")))
	case "medium":
		must(t, barePuts(b.direct, "bench", 1000, 1<<20, flatName("medium")))
	case "many":
		must(t, barePuts(b.direct, "bench", 100_000, 1, flatName("many")))
	case "tree":
		must(t, barePuts(b.direct, "bench", 100_000, 1, treeName))
	default:
		t.Fatalf("no set %q", set)
	}
}

func flatName(dir string) func(int) string {
	return func(i int) string { return dir + "/f" + strconv.Itoa(i) }
}

// treeName makes directories of a hundred.
func treeName(i int) string { return fmt.Sprintf("tree/d%d/f%d", i/100, i%100) }

// readJob is something to do with a mount that has seen nothing yet.
type readJob struct {
	sites  string // where it is done
	name   string
	set    string // what is read, see load
	unit   unit
	amount float64
	before func(r *peerRun) error // not timed
	do     func(r *peerRun) error
	// bare does the same by the SDK alone; constant: it can be done on the
	// daemon of constant data.
	bare     func(env []string) error
	constant bool
	// mounting: the time runs from before the mount.
	mounting bool
	// counted: requests and bytes are counted, in a round that is not timed.
	counted bool
	// args are flags, by program; programs, if given, are all that do the job.
	args     map[string][]string
	programs []string
	needs    string // what "coffer mount --help" must name
}

func (j readJob) hasColumn(name string) bool {
	switch name {
	case bareName:
		return j.bare != nil
	case constantPeer.name:
		return j.constant
	}
	return j.programs == nil || slices.Contains(j.programs, name)
}

// measure does a job once.
func (b *bench) measure(t *testing.T, p peer, job readJob) (f figure) {
	t.Helper()
	if p.name == bareName {
		before, begun := ownCPU(), time.Now()
		if err := job.bare(b.env); err != nil {
			f.problem = err.Error()
		}
		f.wall = time.Since(begun).Seconds()
		if slices.Equal(b.env, b.direct) { // a link is of this process, too
			f.cpu = ownCPU() - before
		}
		return f
	}
	r := b.newRun(t, p, job, b.env)
	begun := time.Now()
	if err := r.start(); err != nil {
		t.Log(err)
		return figure{problem: "does not mount"}
	}
	defer r.stop()
	b.sameReadAhead(t, r)
	var late atomic.Bool
	timer := time.AfterFunc(peerTimeout, func() { late.Store(true); r.cmd.Process.Kill() })
	defer timer.Stop()
	var err error
	if job.before != nil {
		err = job.before(r)
	}
	before := 0.0
	if !job.mounting {
		before, begun = r.cpu(), time.Now()
	}
	if err == nil {
		err = job.do(r)
	}
	f.wall = time.Since(begun).Seconds()
	switch {
	case late.Load():
		f.problem = fmt.Sprintf("> %.0f s", peerTimeout.Seconds())
	case err != nil:
		t.Logf("%s, %s: %v", p.name, job.name, err)
		f.problem = "cannot"
	default:
		f.cpu, f.mib = r.cpu()-before, r.peak()
	}
	return f
}

func (b *bench) newRun(t *testing.T, p peer, job readJob, env []string) *peerRun {
	home := t.TempDir()
	r := &peerRun{t: t, peer: p, env: env, home: home}
	for _, arg := range job.args[p.name] {
		r.args = append(r.args, strings.ReplaceAll(arg, "$home", home))
	}
	return r
}

// sameReadAhead lets the kernel read as far ahead on the constant daemon's
// mount as on Coffer's, which the order of the programs puts before.
func (b *bench) sameReadAhead(t *testing.T, r *peerRun) {
	t.Helper()
	file, err := bdiReadAhead(r.dir)
	must(t, err)
	switch r.peer.name {
	case cofferPeer.name:
		kib, err := os.ReadFile(file)
		must(t, err)
		b.readAhead = string(kib)
	case constantPeer.name:
		if err := os.WriteFile(file, []byte(b.readAhead), 0); err != nil {
			t.Logf("the constant mount keeps its own read-ahead: %v", err)
		}
	}
}

// count does a job again and tells requests and kilobytes of answers for each
// of its amount.
func (b *bench) count(t *testing.T, p peer, job readJob) string {
	t.Helper()
	l := startLink(t, envOf(b.direct, "AWS_ENDPOINT_URL"), 0, 0)
	r := b.newRun(t, p, job, l.env(b.direct))
	if r.start() != nil {
		return "not counted"
	}
	defer r.stop()
	if _, err := os.Stat(filepath.Join(r.dir, "data", "four")); err != nil {
		return "not counted"
	}
	l.reset()
	if err := job.do(r); err != nil {
		return "not counted"
	}
	return fmt.Sprintf("%.2f requests, %s KiB", float64(l.requests.Load())/job.amount, short(float64(l.body.Load())/1024/job.amount))
}

// ownCPU is what this process has used, in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // of oneself, which cannot fail
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// Sites by one word each, as jobs name them.
const everywhere = "versitygw minio"

var (
	listed    = map[string][]string{"Coffer": {"--attributes", "list"}, "rclone": {"--use-server-modtime"}, "rclone, vfs full": {"--use-server-modtime"}}
	large     = map[string][]string{"Coffer": {"--memory", "2G"}, "tigrisfs": {"--memory-limit", "2000"}}
	keptFiles = map[string][]string{"Coffer": {"--memory", "256MiB", "--cache-dir", "$home/cache", "--cache-size", "4G"},
		"s3fs": {"-o", "use_cache=$home/cache"}, "tigrisfs": {"--memory-limit", "256", "--cache", "$home/cache", "--cache-to-disk-hits", "1"}}
	programsThatKeep = []string{"Coffer", "s3fs", "rclone, vfs full", "tigrisfs"}
)

var readJobs = []readJob{
	{sites: everywhere, name: "read 1 GiB, dd bs=128K", set: "one", unit: byBytes, amount: 1, do: reader("dd", "bs=128K"), constant: true,
		bare: func(env []string) error { return bareDownload(env, "bench", "data/one", gib) }},
	{sites: everywhere + " https slow", name: "read 1 GiB, dd bs=1M", set: "one", unit: byBytes, amount: 1, do: reader("dd", "bs=1M"), constant: true,
		bare: func(env []string) error { return bareDownload(env, "bench", "data/one", gib) }},
	{sites: "versitygw", name: "read 1 GiB, cat", set: "one", unit: byBytes, amount: 1, do: reader("cat", ""), constant: true},
	{sites: "versitygw", name: "read 1 GiB, cp", set: "one", unit: byBytes, amount: 1, do: reader("cp", ""), constant: true},
	{sites: "versitygw", name: "read 4 x 256 MiB at a time", set: "parallel", unit: byBytes, amount: 1, constant: true, do: func(r *peerRun) error {
		return inParallel(4, 4, func(i int) error { return readFile(filepath.Join(r.dir, "data", "p"+strconv.Itoa(i)), gib/4) })
	}},
	{sites: "versitygw", name: "read again from memory, 1 GiB", set: "one", unit: byBytes, amount: 1, args: large, constant: true, before: readAndForget, do: reader("dd", "bs=1M")},
	{sites: "versitygw", name: "read again from disk, 1 GiB", set: "one", unit: byBytes, amount: 1, args: keptFiles, programs: programsThatKeep, needs: "--cache-dir",
		constant: true, before: threeTimes(readAndForget), do: reader("dd", "bs=1M")},
	{sites: "versitygw", name: "read again from the page cache, 1 GiB", set: "one", unit: byBytes, amount: 1, constant: true, before: reader("dd", "bs=1M"), do: reader("dd", "bs=1M")},
	{sites: "versitygw", name: "1,000 random reads of 4 KiB in 4 GiB", set: "four", unit: byReads, amount: 1000, do: randomReads(1000, 4<<10), counted: true, constant: true},
	{sites: "versitygw", name: "500 random reads of 128 KiB", set: "four", unit: byReads, amount: 500, do: randomReads(500, 128<<10), counted: true, constant: true},
	{sites: "versitygw", name: "200 random reads of 1 MiB", set: "four", unit: byReads, amount: 200, do: randomReads(200, 1<<20), counted: true, constant: true},
	smallFiles("versitygw", 10_000, 4<<10, 1), smallFiles(everywhere, 10_000, 4<<10, 8),
	smallFiles("versitygw", 1000, 1<<20, 1), smallFiles(everywhere, 1000, 1<<20, 8), smallFiles("slow", 1000, 4<<10, 8),
	{sites: "versitygw", name: "ls -l of 100,000 as listed", set: "many", unit: byEntries, amount: 100_000, args: listed, do: lines(100_001, "ls", "-l", "many"),
		bare: func(env []string) error { return bareList(env, "bench", "many/", 100_000) }},
	{sites: "versitygw", name: "ls -l of 100,000 with stored attributes", set: "many", unit: byEntries, amount: 100_000, programs: []string{"Coffer", "s3fs", "rclone"},
		do: lines(100_001, "ls", "-l", "many")},
	{sites: "versitygw", name: "find of 100,000 in 1,000 directories", set: "tree", unit: byEntries, amount: 100_000, args: listed, do: lines(100_000, "find", "tree", "-type", "f"),
		bare: func(env []string) error { return bareList(env, "bench", "tree/", 100_000) }},
	{sites: "versitygw", name: "mount and first ls; then idle", set: "medium", unit: bySeconds, amount: 1, mounting: true, do: func(r *peerRun) error {
		_, err := os.ReadDir(r.dir)
		return err
	}},
}

// threeTimes is for caches that leave out of a first read what their disk is too slow for.
func threeTimes(do func(*peerRun) error) func(*peerRun) error {
	return func(r *peerRun) error { return errors.Join(do(r), do(r), do(r)) }
}

// reader is a program that reads the object of 1 GiB.
func reader(program, how string) func(*peerRun) error {
	return func(r *peerRun) error {
		name := filepath.Join(r.dir, "data", "one")
		if program == "dd" {
			return runIn("/", "dd", "if="+name, "of=/dev/null", how, "status=none")
		}
		if program == "cp" {
			return runIn("/", "cp", name, "/dev/null")
		}
		return runIn("/", "sh", "-c", program+" '"+name+"' >/dev/null")
	}
}

// readAndForget reads the object and has the kernel forget its pages.
func readAndForget(r *peerRun) error {
	if err := reader("dd", "bs=1M")(r); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(r.dir, "data", "one"))
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// randomReads reads n times at places that are the same for all.
func randomReads(n, size int) func(*peerRun) error {
	return func(r *peerRun) error {
		f, err := os.Open(filepath.Join(r.dir, "data", "four"))
		if err != nil {
			return err
		}
		defer f.Close()
		places := rand.New(rand.NewPCG(5, 5))
		buf := make([]byte, size)
		for range n {
			if _, err := f.ReadAt(buf, places.Int64N((4*gib-int64(size))/4096)*4096); err != nil {
				return err
			}
		}
		return nil
	}
}

func smallFiles(sites string, n int, size int64, readers int) readJob {
	set, of := "small", "4 KiB"
	if size == 1<<20 {
		set, of = "medium", "1 MiB"
	}
	name := flatName(set)
	return readJob{
		sites: sites, name: fmt.Sprintf("read %d x %s, %d at a time", n, of, readers), set: set, unit: byFiles, amount: float64(n),
		do: func(r *peerRun) error {
			return inParallel(n, readers, func(i int) error { return readFile(filepath.Join(r.dir, name(i)), size) })
		},
		bare: func(env []string) error {
			c, bucket := bareClient(env), "bench"
			return inParallel(n, readers, func(i int) error {
				key := name(i)
				return bareGet(c, &s3.GetObjectInput{Bucket: &bucket, Key: &key}, size)
			})
		},
	}
}

// lines runs a program in the mount that must print so many.
func lines(want int, program string, args ...string) func(*peerRun) error {
	return func(r *peerRun) error {
		ctx, cancel := context.WithTimeout(context.Background(), peerTimeout+10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Dir = r.dir
		out, err := cmd.Output()
		if n := strings.Count(string(out), "\n"); err == nil && n != want {
			err = errors.New(strconv.Itoa(n) + " lines")
		}
		return err
	}
}
