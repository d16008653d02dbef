package e2e

import (
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTwoMounts does random operations through two descriptors on each of two
// mounts of one bucket, and compares each answer, and the objects after it,
// with a model of what SEMANTICS.md promises: an open sees what was closed
// before, wherever; what others stored meanwhile is not overwritten, and who
// would have done so is told; no descriptor shows bytes of two versions; of two
// closes at the same time one wins. The metadata lives for no time at all:
// within it a mount may not know better, and the model has no clock.
//
// The operations are chosen as those of TestLikeALocalFileSystem.
func TestTwoMounts(t *testing.T) {
	seed, ops := seedAndOps(t, 600)
	// With a key of the KMS an ETag is of a version, not of its bytes: the same
	// bytes stored again are another version, as the model has it.
	s := startEmulator(t, "aws")
	_, err := s.CreateKMSKey("alias/mine")
	must(t, err)
	args := []string{"--metadata-ttl", "0s", "--sse", "kms", "--sse-kms-key-id", "alias/mine"}
	a := mountStore(t, s.Env(), args...)
	must(t, os.Mkdir(a.path("bucket"), 0o755))
	b := mountStore(t, s.Env(), args...)
	r := &twoMounts{
		t: t, rng: mathrand.New(mathrand.NewPCG(seed, 2)), other: client(t, s.Env()),
		store: map[string]version{}, ever: map[string]bool{},
	}
	for i, m := range []*mount{a, b} {
		r.sides[i] = &side{id: i, m: m, known: map[string]*seenFile{}, hidden: map[string]*seenFile{}}
	}
	defer func() {
		for _, s := range r.sides {
			for _, d := range s.open { // after a failure
				unix.Close(d.fd)
			}
		}
		if t.Failed() {
			t.Logf("seed %d; the last operations:\n%s", seed, strings.Join(r.log[max(0, len(r.log)-60):], "\n"))
		}
	}()
	for range ops {
		r.step()
		r.sameObjects()
	}
	for _, s := range r.sides {
		for _, d := range slices.Clone(s.open) {
			r.close(s, d)
		}
	}
	r.sameObjects()
	a.stop()
	b.stop()
	r.sameObjects()
	want := map[string]int64{}
	for name, v := range r.store {
		if v.there() {
			want[name] = int64(len(v.data))
		}
	}
	if got := r.other.keys(t, "bucket"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the bucket has %v, want %v", got, want)
	}
}

// version is what lies under a key; the zero value is nothing.
type version struct {
	number int
	data   string
}

func (v version) there() bool { return v.number > 0 }

// seenFile is a file as one mount shows it to all who have it open there.
type seenFile struct {
	key   string  // where its object lies, "" when nobody else can reach that
	base  version // what a commit replaces
	data  string  // what is read
	dirty bool    // there is something to commit
	whole bool    // none of the data is that of base
	gone  bool    // it has no name: nothing is committed any more
	lost  bool    // nor can base be read any more
	left  bool    // the mount has met another version: ESTALE from then on
	users int     // open descriptors
}

// descriptor is an open file.
type descriptor struct {
	*seenFile
	fd                     int
	name                   string
	reads, writes, appends bool
	commits                bool // it may write, or has made the file
	wrote                  bool
	failed                 syscall.Errno // what a commit was answered with that it had a part in
}

// side is one mount.
type side struct {
	id     int
	m      *mount
	open   []*descriptor
	known  map[string]*seenFile
	hidden map[string]*seenFile // unlinked and open: the object stays until the last close
}

type twoMounts struct {
	t        *testing.T
	rng      *mathrand.Rand
	other    independent
	sides    [2]*side
	store    map[string]version
	ever     map[string]bool // every content that the store has had
	log      []string
	stamp    int
	versions int
}

// refusals are the answers to who has a part in a failed commit. When another
// one has failed since, they are that one's.
var refusals = []syscall.Errno{syscall.ESTALE, syscall.EEXIST}

// maxShared is how long a file gets: what is longer than 4 MiB is written in
// order, and its commits come earlier.
const maxShared = 1 << 20

var sharedNames = []string{"f", "g"}

// said notes an operation and fails when its errno is none of those wanted.
func (r *twoMounts) said(s *side, what string, err error, want ...syscall.Errno) {
	r.t.Helper()
	got := errnoOf(err)
	r.log = append(r.log, fmt.Sprintf("%d: %s: %d", s.id, what, got))
	if !slices.Contains(want, got) {
		r.t.Fatalf("mount %d: %s: %v, want %v", s.id, what, err, want)
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return ^syscall.Errno(0)
	}
	return errno
}

// current reports whether all that is read of the file is sure to be there.
func (r *twoMounts) current(f *seenFile) bool {
	return f.whole || !f.lost && (f.key == "" || r.store[f.key] == f.base)
}

// put stores data as a new version.
func (r *twoMounts) put(key, data string) version {
	r.versions++
	v := version{r.versions, data}
	r.store[key] = v
	r.ever[data] = true
	return v
}

// look is a lookup: the file, nil when there is none. The mount meets what the
// store has; a file that is open in another version is left behind.
func (r *twoMounts) look(s *side, name string) *seenFile {
	f, now := s.known[name], r.store[name]
	switch {
	case s.hidden[name] != nil:
		return nil
	case f != nil && f.dirty:
		return f
	case !now.there():
		return nil
	case f != nil && f.users > 0 && !f.left && f.base == now:
		return f
	case f != nil && f.users > 0:
		f.left = true
	}
	f = &seenFile{key: name, base: now, data: now.data}
	s.known[name] = f
	return f
}

// commit makes the store have the file, or fails all who have it open.
func (r *twoMounts) commit(s *side, f *seenFile) syscall.Errno {
	if !f.dirty || f.gone {
		return 0
	}
	f.dirty, f.whole = false, false
	if r.store[f.key] == f.base {
		f.base = r.put(f.key, f.data)
		return 0
	}
	errno := syscall.EEXIST
	if f.base.there() {
		errno = syscall.ESTALE
	}
	for _, d := range s.open {
		if d.seenFile == f {
			d.failed = errno
		}
	}
	f.left = true
	return errno
}

// reuse frees a name that was unlinked and is open: its object is kept for
// those who have it open, unless it is another's by now.
func (r *twoMounts) reuse(s *side, name string) {
	f := s.hidden[name]
	if f == nil {
		return
	}
	delete(s.hidden, name)
	r.loseName(f)
	if r.store[name] == f.base {
		r.store[name] = version{}
	}
}

// loseName is what becomes of an open file when its name is another's.
func (r *twoMounts) loseName(f *seenFile) {
	f.lost = f.base.there() && r.store[f.key] != f.base
	f.gone, f.key = true, ""
}

func (r *twoMounts) step() {
	s := r.sides[r.rng.IntN(2)]
	name := sharedNames[r.rng.IntN(len(sharedNames))]
	switch k := r.rng.IntN(20); {
	case len(s.open) < 2 && k < 14 || len(s.open) == 0 && k < 18:
		r.openFile(s, name)
	case k < 17:
		r.onDescriptor(s, s.open[r.rng.IntN(len(s.open))])
	default:
		r.onName(s, name)
	}
}

func (r *twoMounts) onName(s *side, name string) {
	switch r.rng.IntN(7) {
	case 0, 1:
		f := r.look(s, name)
		st, err := os.Stat(s.m.path("bucket", name))
		if f == nil {
			r.said(s, "stat "+name, err, syscall.ENOENT)
			return
		}
		r.said(s, "stat "+name, err, 0)
		if st.Size() != int64(len(f.data)) {
			r.t.Fatalf("mount %d: %s has %d bytes, want %d", s.id, name, st.Size(), len(f.data))
		}
	case 2, 3:
		var want []string
		for _, name := range sharedNames {
			f := s.known[name]
			if s.hidden[name] == nil && (r.store[name].there() || f != nil && f.dirty) {
				want = append(want, name)
			}
		}
		r.said(s, "list", nil, 0)
		if got := list(r.t, s.m.path("bucket")); fmt.Sprint(got) != fmt.Sprint(want) {
			r.t.Fatalf("mount %d lists %q, want %q", s.id, got, want)
		}
	case 4:
		size := r.size()
		f := r.look(s, name)
		err := syscall.Truncate(s.m.path("bucket", name), int64(size))
		what := fmt.Sprintf("truncate %s %d", name, size)
		if f == nil {
			r.said(s, what, err, syscall.ENOENT)
			return
		}
		r.said(s, what, err, 0)
		if f.dirty {
			f.resize(size)
		} else if size != len(f.data) {
			f.resize(size)
			r.commit(s, f)
		}
	case 5:
		f := r.look(s, name)
		err := syscall.Unlink(s.m.path("bucket", name))
		if f == nil {
			r.said(s, "unlink "+name, err, syscall.ENOENT)
			return
		}
		r.said(s, "unlink "+name, err, 0)
		delete(s.known, name)
		switch {
		case f.users == 0:
			r.store[name] = version{}
		case f.base.there():
			f.gone = true
			s.hidden[name] = f
		default:
			f.gone, f.key = true, ""
		}
	default:
		to := sharedNames[0]
		if name == to {
			to = sharedNames[1]
		}
		f := r.look(s, name)
		err := syscall.Rename(s.m.path("bucket", name), s.m.path("bucket", to))
		what := "rename " + name + " " + to
		if f == nil {
			r.said(s, what, err, syscall.ENOENT) // some kernels do not look for the other then
			return
		}
		r.look(s, to)
		r.reuse(s, to)
		errno := r.commit(s, f)
		if errno == syscall.ESTALE {
			// The kernel looks the names up again and moves what others stored.
			r.look(s, to)
			if f = r.look(s, name); f == nil {
				errno = syscall.ENOENT
			} else {
				errno = 0
			}
		}
		r.said(s, what, err, errno)
		if errno != 0 {
			return
		}
		if target := s.known[to]; target != nil { // there or not, it has it open
			r.loseName(target)
		}
		r.store[name] = version{}
		f.base = r.put(to, f.data)
		f.key = to
		delete(s.known, name)
		s.known[to] = f
	}
}

// resize cuts the file or appends zeros to it.
func (f *seenFile) resize(size int) {
	f.data = (f.data + strings.Repeat("\x00", max(0, size-len(f.data))))[:size]
	f.dirty, f.whole = true, f.whole || size == 0
}

// size is a length, 0 often.
func (r *twoMounts) size() int {
	switch r.rng.IntN(6) {
	case 0:
		return 0
	case 1:
		return r.rng.IntN(400_000)
	}
	return r.rng.IntN(2000)
}

func (r *twoMounts) openFile(s *side, name string) {
	flags := []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR}[r.rng.IntN(4)]
	for _, f := range []int{os.O_CREATE, os.O_CREATE, os.O_TRUNC, os.O_EXCL, os.O_APPEND} {
		if r.rng.IntN(3) == 0 {
			flags |= f
		}
	}
	if flags&os.O_CREATE == 0 {
		flags &^= os.O_EXCL // undefined alone
	}
	if flags&unix.O_ACCMODE == os.O_RDONLY {
		flags &^= os.O_TRUNC // unspecified
	}
	f := r.look(s, name)
	fd, err := unix.Open(s.m.path("bucket", name), flags|unix.O_CLOEXEC, 0o644)
	what := fmt.Sprintf("open %s %#x = %d", name, flags, fd)
	d := &descriptor{
		fd: fd, name: name, reads: flags&unix.O_ACCMODE != os.O_WRONLY,
		writes: flags&unix.O_ACCMODE != os.O_RDONLY, appends: flags&os.O_APPEND != 0,
	}
	d.commits = d.writes
	switch {
	case f == nil && flags&os.O_CREATE == 0:
		r.said(s, what, err, syscall.ENOENT)
		return
	case f != nil && flags&os.O_EXCL != 0:
		r.said(s, what, err, syscall.EEXIST)
		return
	case f == nil:
		r.reuse(s, name)
		f = &seenFile{key: name, dirty: true, whole: true}
		s.known[name] = f
		d.wrote, d.commits = true, true
	case flags&os.O_TRUNC != 0:
		f.resize(0)
		d.wrote = true
	}
	r.said(s, what, err, 0)
	f.users++
	d.seenFile = f
	s.open = append(s.open, d)
}

// onDescriptor does something with an open file.
func (r *twoMounts) onDescriptor(s *side, d *descriptor) {
	what := func(op string, args ...any) string { return fmt.Sprintf("%s of %d %v", op, d.fd, args) }
	switch k := r.rng.IntN(12); {
	case k < 4 && d.reads:
		r.read(s, d)
	case k < 7 && d.writes && len(d.data) < maxShared:
		r.stamp++
		stamp := fmt.Sprintf("<%d>", r.stamp)
		p := []byte(strings.Repeat(stamp, 1+r.size()/len(stamp)))
		off := r.rng.IntN(len(d.data) + 100)
		var n int
		var err error
		if d.appends {
			off = len(d.data)
			n, err = unix.Write(d.fd, p)
		} else {
			n, err = unix.Pwrite(d.fd, p, int64(off))
		}
		if r.changed(s, d, what("write", len(p), off), err) {
			if n != len(p) {
				r.t.Fatalf("%d bytes written of %d", n, len(p))
			}
			end := min(off+len(p), len(d.data))
			d.resize(max(len(d.data), off))
			d.data = d.data[:off] + string(p) + d.data[max(off, end):]
		}
	case k == 7 && d.writes:
		size := r.size()
		if r.changed(s, d, what("ftruncate", size), unix.Ftruncate(d.fd, int64(size))) && (d.dirty || size != len(d.data)) {
			d.resize(size)
		}
	case k == 8:
		err := unix.Fsync(d.fd)
		r.said(s, what("fsync"), err, r.ended(s, d, true)...)
	case k == 9:
		var st unix.Stat_t
		err := unix.Fstat(d.fd, &st)
		switch {
		case d.failed != 0:
			r.said(s, what("fstat"), err, 0, syscall.ESTALE)
			return
		case !d.gone && (d.left || !d.dirty && !r.current(d.seenFile)):
			d.left = true
			r.said(s, what("fstat"), err, syscall.ESTALE)
			return
		}
		r.said(s, what("fstat"), err, 0)
		if st.Size != int64(len(d.data)) {
			r.t.Fatalf("mount %d: %d has %d bytes, want %d", s.id, d.fd, st.Size, len(d.data))
		}
	default:
		r.closeOne(s, d)
	}
}

// changed is the end of a change through d; it reports whether it was made.
func (r *twoMounts) changed(s *side, d *descriptor, what string, err error) bool {
	r.t.Helper()
	switch {
	case d.failed != 0:
		r.said(s, what, err, refusals...)
	case d.left:
		r.said(s, what, err, syscall.ESTALE)
	case d.lost:
		// Others had removed it before its name became another's: whether the
		// mount knew depends on what it had to ask.
		r.said(s, what, err, 0, syscall.ESTALE)
	case r.current(d.seenFile), d.dirty, d.gone:
		r.said(s, what, err, 0)
	default:
		// The mount may notice now, or the store will at the commit.
		r.said(s, what, err, 0, syscall.ESTALE)
		d.left = err != nil
	}
	d.wrote = d.wrote || err == nil
	return err == nil
}

// ended is what a close or an fsync of d may answer; it commits the file if it
// is to.
func (r *twoMounts) ended(s *side, d *descriptor, commits bool) []syscall.Errno {
	switch {
	case !d.commits:
		return []syscall.Errno{0}
	case d.failed != 0:
		return refusals
	case !commits:
		return []syscall.Errno{0}
	}
	return []syscall.Errno{r.commit(s, d.seenFile)}
}

// read reads all of the file.
func (r *twoMounts) read(s *side, d *descriptor) {
	readAll := func() (string, error) {
		p := make([]byte, 2*maxShared)
		n := 0
		for {
			m, err := unix.Pread(d.fd, p[n:], int64(n))
			n += max(m, 0)
			if err != nil || m == 0 {
				return string(p[:n]), err
			}
		}
	}
	what := fmt.Sprintf("read of %d", d.fd)
	got, err := readAll()
	if d.failed != 0 {
		// It shows what is there again, whole.
		r.said(s, what, err, 0, syscall.ESTALE)
		if err == nil && !r.ever[got] && !slices.ContainsFunc(s.open, func(e *descriptor) bool { return got == e.data }) {
			r.t.Fatalf("mount %d: after its failure %d reads as %s, which was never there", s.id, d.fd, brief(got))
		}
		return
	}
	switch {
	case d.left && !d.gone:
		// The kernel's pages go when the daemon says so, which takes a moment.
		for deadline := time.Now().Add(5 * time.Second); err == nil && time.Now().Before(deadline); got, err = readAll() {
			if got != d.data {
				break
			}
			time.Sleep(time.Millisecond)
		}
		r.said(s, what, err, syscall.ESTALE)
	case r.current(d.seenFile):
		r.said(s, what, err, 0)
	default:
		r.said(s, what, err, 0, syscall.ESTALE)
	}
	if got != d.data && (err == nil || !strings.HasPrefix(d.data, got)) {
		r.t.Fatalf("mount %d: %d reads as %s, want %s", s.id, d.fd, brief(got), brief(d.data))
	}
}

// closeOne closes d, at the same time as one of the other mount when both have
// changed the same file.
func (r *twoMounts) closeOne(s *side, d *descriptor) {
	o := r.sides[1-s.id]
	for _, e := range o.open {
		if !d.wrote || !d.dirty || d.gone || !e.wrote || !e.dirty || e.gone || d.key != e.key {
			continue
		}
		var errs [2]error
		done := make(chan struct{})
		go func() {
			errs[1] = unix.Close(e.fd)
			close(done)
		}()
		errs[0] = unix.Close(d.fd)
		<-done
		// The order is not known: one that explains what was said.
		if r.explains(d, e, errs[0] == nil, errs[1] == nil) {
			r.closed(s, d, errs[0])
			r.closed(o, e, errs[1])
		} else {
			r.closed(o, e, errs[1])
			r.closed(s, d, errs[0])
		}
		return
	}
	r.close(s, d)
}

// explains reports whether a commit of d, then one of e, would have had these
// successes.
func (r *twoMounts) explains(d, e *descriptor, dDone, eDone bool) bool {
	now := r.store[d.key]
	first := now == d.base
	if first {
		now = version{r.versions + 1, d.data}
	}
	return first == dDone && (now == e.base) == eDone
}

func (r *twoMounts) close(s *side, d *descriptor) { r.closed(s, d, unix.Close(d.fd)) }

// closed is the end of a close of d.
func (r *twoMounts) closed(s *side, d *descriptor, err error) {
	r.t.Helper()
	r.said(s, fmt.Sprintf("close of %d", d.fd), err, r.ended(s, d, d.wrote)...)
	s.open = slices.DeleteFunc(s.open, func(e *descriptor) bool { return e == d })
	d.users--
	if d.users > 0 || !d.gone || s.hidden[d.key] != d.seenFile {
		return
	}
	// The last close of an unlinked file deletes its object, but nobody else's,
	// and the kernel does not wait for that.
	delete(s.hidden, d.key)
	if r.store[d.key] == d.base {
		r.store[d.key] = version{}
	}
	there := func() bool {
		if r.store[d.key].there() {
			_, err := os.Lstat(s.m.path("bucket", d.key))
			return err == nil
		}
		_, left := r.other.keys(r.t, "bucket")[d.key]
		return !left
	}
	for deadline := time.Now().Add(10 * time.Second); !there(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("mount %d: after the last close of %s, which was unlinked, the name is not what it should be", s.id, d.key)
		}
	}
}

// sameObjects compares the bucket with the model.
func (r *twoMounts) sameObjects() {
	r.t.Helper()
	keys := r.other.keys(r.t, "bucket")
	for _, name := range sharedNames {
		data, want := "", r.store[name]
		_, there := keys[name]
		if there {
			data = r.other.get(r.t, "bucket", name)
		}
		if there != want.there() || data != want.data {
			r.t.Fatalf("the store has %s (%v) as %s, want it (%v) as %s", name, there, brief(data), want.there(), brief(want.data))
		}
	}
}
