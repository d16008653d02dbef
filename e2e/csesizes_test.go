package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/emulator"
)

// sealedBy is data as a message of a keyring, with frames of so many bytes, and its profile.
func sealedBy(t testing.TB, e keyring.Envelope, frame int, data string) (string, message.Profile) {
	t.Helper()
	s, err := message.NewSealer(e.Key, e.Context, e.EDKs, int64(frame))
	must(t, err)
	p := s.Header()
	for i := int64(0); len(data) >= frame; i++ {
		p, err = s.Seal(p, i, []byte(data[:frame]))
		must(t, err)
		data = data[frame:]
	}
	p, err = s.SealFinal(p, []byte(data))
	must(t, err)
	return string(p), s.Profile()
}

func envelope(t testing.TB, ringFile string) keyring.Envelope {
	t.Helper()
	ring, c, err := keyring.Load(t.Context(), ringFile, nil)
	must(t, err)
	e, err := ring.Wrap(t.Context(), c)
	must(t, err)
	return e
}

// wantSizes fails unless ls -l shows that file N of a directory has N bytes, for N from 0
// to files-1.
func wantSizes(t testing.TB, what, dir string, files int) {
	t.Helper()
	out, err := exec.Command("ls", "-l", dir).CombinedOutput()
	must(t, err)
	right := 0
	for _, line := range strings.Split(string(out), "\n") {
		if f := strings.Fields(line); len(f) == 9 {
			name, _ := strconv.Atoi(f[8])
			if f[4] != strconv.Itoa(name) {
				t.Errorf("%s: %s", what, line)
				return
			}
			right++
		}
	}
	if right != files {
		t.Errorf("%s: %d of %d files: %.300s", what, right, files, out)
	}
}

// What sizes cost: those of messages that say it nowhere a HEAD and a GET of their first
// bytes, as many at a time as there may be, once; the next mount with the cache's key
// asks for none of them, nor does one with a declaration.
func TestSizesOfManyMessages(t *testing.T) {
	const files, frame, delay = 300, 500, 50 * time.Millisecond
	s := startEmulator(t, "nosse")
	ring, dir := keyringFile(t), t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "key"), random(t, 32), 0o600))
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	m.stop()
	e, c := envelope(t, ring), client(t, m.env)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range files {
		g.Go(func() error {
			theirs, _ := sealedBy(t, e, frame, strings.Repeat("x", i))
			mine, p := sealedBy(t, e, int(message.Own.Frame), strings.Repeat("x", i))
			c.put(t, "bucket", fmt.Sprint("theirs/", i), theirs)
			c.putWith(t, "bucket", fmt.Sprint("mine/", i), mine, "", map[string]string{"coffer-esdk": p.String()})
			return nil
		})
	}
	must(t, g.Wait())
	args := []string{"--cse-keyring", ring, "--cache-dir", filepath.Join(dir, "cache"), "--cache-key-file", filepath.Join(dir, "key")}
	cost := func(what, dir string, heads, gets int) {
		t.Helper()
		s.ResetRequests()
		wantSizes(t, what, m.path("bucket", dir), files)
		h, g := 0, 0
		for _, r := range s.Requests() {
			switch {
			case !strings.HasPrefix(r.Key, dir+"/"): // the directory's own name was looked up
			case r.Verb == "HeadObject":
				h++
			case r.Verb == "GetObject":
				g++
			}
		}
		// The kernel may look up what is asked for ahead at that moment.
		const twice = files / 50
		if h < heads || h > heads+min(heads, twice) || g < gets || g > gets+min(gets, twice) {
			t.Errorf("%s: %d HEADs and %d GETs, want %d and %d", what, h, g, heads, gets)
		}
	}

	m.start(append(args, "--attributes", "list")...)
	s.Inject(emulator.Fault{Verb: "HeadObject", Delay: delay})
	cost("theirs", "theirs", files, files)
	if most := atOnce(s, "HeadObject", delay); most < 32 {
		t.Errorf("%d HEADs at a time", most)
	}
	s.ClearFaults()
	cost("theirs again", "theirs", 0, 0)
	cost("mine", "mine", files, 0)
	cost("mine again", "mine", 0, 0)
	m.stop()

	m.start(append(args, "--attributes", "list", "-o", "cse_sizes=bucket/mine/=own")...)
	cost("theirs, by the next mount", "theirs", 0, 0)
	cost("mine, as declared", "mine", 0, 0)
	m.stop()

	m.start(args...)
	cost("theirs, with attributes", "theirs", files, 0)
	cost("mine, with attributes", "mine", files, 0)
}

// atOnce returns how many requests were under way at a time at most, each of which took
// so long.
func atOnce(s *emulator.Server, verb string, each time.Duration) (most int) {
	var begun []time.Time
	for _, r := range s.Requests() {
		if r.Verb == verb {
			begun = append(begun, r.Time)
		}
	}
	for i, first := range begun {
		n := 0
		for _, at := range begun[i:] {
			if at.Sub(first) < each {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

// A size that a declaration or the metadata got wrong is right from the moment when the
// file is opened, or cut by its name.
func TestWrongSizesAreFoundOut(t *testing.T) {
	const wrong = "h=1000;f=4096;s=0"
	profile, err := message.ParseProfile("1;" + wrong)
	must(t, err)
	for _, c := range []struct {
		name string
		args []string
		hint bool
	}{
		{"declared", []string{"--attributes", "list", "-o", "cse_sizes=bucket/=" + wrong}, false},
		{"told by metadata", []string{"--attributes", "full"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startEmulator(t, "nosse")
			ring := keyringFile(t)
			m := mountStore(t, s.Env(), "--cse-keyring", ring)
			must(t, os.Mkdir(m.path("bucket"), 0o755))
			m.stop()
			e, cl := envelope(t, ring), client(t, m.env)
			const frame = 64 << 10
			data, shown := map[string]string{}, map[string]int64{}
			add := func(name string, n int) {
				data[name] = string(random(t, n))
				sealed, _ := sealedBy(t, e, frame, data[name])
				var meta map[string]string
				if c.hint {
					meta = map[string]string{"coffer-esdk": profile.String()}
				}
				cl.putWith(t, "bucket", name, sealed, "", meta)
				l, err := profile.ForStored(int64(len(sealed)))
				must(t, err)
				shown[name] = l.Size()
			}
			for _, n := range []int{0, 1, frame - 1, frame, frame + 1} {
				add(fmt.Sprint("read-", n), n)
			}
			add("cut", 100_000)
			add("cut-to-shown", 100_000)
			add("longer", 100_000)
			m.start(append(c.args, "--cse-keyring", ring)...)
			size := func(name string) int64 {
				st, err := os.Stat(m.path("bucket", name))
				must(t, err)
				return st.Size()
			}
			if out, err := exec.Command("ls", "-l", m.path("bucket")).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for name := range data {
				if n := size(name); n != shown[name] || n == int64(len(data[name])) {
					t.Errorf("%s has %d bytes before it is opened, and %d by what is wrong", name, n, shown[name])
				}
			}
			// Cut first: nothing has opened them.
			for name, n := range map[string]int64{"cut": 99_500, "cut-to-shown": shown["cut-to-shown"], "longer": 150_000} {
				must(t, os.Truncate(m.path("bucket", name), n))
				if n > int64(len(data[name])) {
					data[name] += strings.Repeat("\x00", int(n)-len(data[name]))
				}
				data[name] = data[name][:n]
			}
			for range 2 {
				for name := range data {
					want(t, m.path("bucket", name), data[name])
					if n := size(name); n != int64(len(data[name])) {
						t.Errorf("%s has %d bytes of %d after it was opened", name, n, len(data[name]))
					}
				}
				out, err := exec.Command("ls", "-l", m.path("bucket")).CombinedOutput()
				must(t, err)
				for name := range data {
					if n := size(name); n != int64(len(data[name])) || !strings.Contains(string(out), fmt.Sprintf(" %d ", n)) {
						t.Errorf("%s has %d bytes of %d in a listing after it was opened", name, n, len(data[name]))
					}
				}
			}
		})
	}
}
