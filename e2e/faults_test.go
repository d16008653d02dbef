package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
)

// faultOp is something that a program does on a mount, and how to tell
// afterwards that the store is right. Before it, the bucket holds "there" with
// oldData, and "victim".
type faultOp struct {
	name  string
	verbs []string // requests to damage, one case each
	// do returns the error that the program saw.
	do func(m *mount, fresh []byte) error
	// check looks at the store with another client; ok tells that do
	// reported success.
	check func(t *testing.T, other independent, fresh []byte, ok bool)
}

var oldData = bytes.Repeat([]byte("old data "), 11_111)

// largeSize is beyond two parts of the mount's 8 MiB.
const largeSize = 20 << 20

// newOrOld accepts the new bytes, and before a reported success the old too.
func newOrOld(key string, old []byte) func(*testing.T, independent, []byte, bool) {
	return func(t *testing.T, other independent, fresh []byte, ok bool) {
		t.Helper()
		got := []byte(other.get(t, "bucket", key))
		switch {
		case bytes.Equal(got, fresh):
		case ok:
			t.Errorf("success was reported, and %q holds %d bytes that are not the new ones", key, len(got))
		case !bytes.Equal(got, old):
			t.Errorf("%q holds %d bytes, neither the old nor the new ones", key, len(got))
		}
	}
}

// same fails for bytes that are not the expected ones; an error is fine.
func same(got, want []byte, err error) error {
	if err == nil && !bytes.Equal(got, want) {
		return errWrongBytes
	}
	return err
}

var errWrongBytes = errors.New("WRONG BYTES without an error")

var faultOps = []faultOp{
	{
		name: "read", verbs: []string{"GetObject", "HeadObject"},
		do: func(m *mount, _ []byte) error {
			got, err := os.ReadFile(m.path("bucket", "there"))
			return same(got, oldData, err)
		},
	},
	{
		name: "list", verbs: []string{"ListObjectsV2"},
		do: func(m *mount, _ []byte) error {
			entries, err := os.ReadDir(m.path("bucket"))
			if err != nil {
				return err
			}
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if !slices.Equal(names, []string{"there", "victim"}) {
				return fmt.Errorf("%w: listed %q", errWrongBytes, names)
			}
			return nil
		},
	},
	{
		name: "create", verbs: []string{"PutObject", "HeadObject"},
		do: func(m *mount, fresh []byte) error {
			return os.WriteFile(m.path("bucket", "new"), fresh[:100_000], 0o644)
		},
		check: func(t *testing.T, other independent, fresh []byte, ok bool) {
			newOrOld("new", nil)(t, other, fresh[:100_000], ok)
		},
	},
	{
		name: "overwrite", verbs: []string{"PutObject"},
		do: func(m *mount, fresh []byte) error {
			return os.WriteFile(m.path("bucket", "there"), fresh[:100_000], 0o644)
		},
		check: func(t *testing.T, other independent, fresh []byte, ok bool) {
			newOrOld("there", oldData)(t, other, fresh[:100_000], ok)
		},
	},
	{
		name: "stream", verbs: []string{"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"},
		do: func(m *mount, fresh []byte) error {
			return os.WriteFile(m.path("bucket", "there"), fresh, 0o644)
		},
		check: newOrOld("there", oldData),
	},
	{
		name: "change in the middle", verbs: []string{"GetObject", "PutObject"},
		do: func(m *mount, _ []byte) error {
			f, err := os.OpenFile(m.path("bucket", "there"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("CHANGED"), 50_000)
			return errors.Join(err, f.Close())
		},
		check: func(t *testing.T, other independent, _ []byte, ok bool) {
			changed := bytes.Clone(oldData)
			copy(changed[50_000:], "CHANGED")
			newOrOld("there", oldData)(t, other, changed, ok)
		},
	},
	{
		name: "rename", verbs: []string{"CopyObject", "DeleteObject"},
		do: func(m *mount, _ []byte) error {
			return os.Rename(m.path("bucket", "there"), m.path("bucket", "moved"))
		},
		check: func(t *testing.T, other independent, _ []byte, ok bool) {
			from, to := other.get(t, "bucket", "there"), other.get(t, "bucket", "moved")
			if from != string(oldData) && to != string(oldData) {
				t.Errorf("the data is lost: %d bytes under the old name, %d under the new", len(from), len(to))
			}
			if ok && (from != "" || to != string(oldData)) {
				t.Errorf("success was reported: %d bytes under the old name, %d under the new", len(from), len(to))
			}
		},
	},
	{
		name: "remove", verbs: []string{"DeleteObject"},
		do: func(m *mount, _ []byte) error { return os.Remove(m.path("bucket", "victim")) },
		check: func(t *testing.T, other independent, _ []byte, ok bool) {
			if got := other.get(t, "bucket", "victim"); ok && got != "" {
				t.Error("success was reported, and the object is there")
			}
		},
	},
	{
		name: "mkdir", verbs: []string{"PutObject"},
		do: func(m *mount, _ []byte) error { return os.Mkdir(m.path("bucket", "dir"), 0o755) },
		check: func(t *testing.T, other independent, _ []byte, ok bool) {
			if _, there := other.keys(t, "bucket")["dir/"]; ok && !there {
				t.Error("success was reported, and there is no directory")
			}
		},
	},
}

// faultEffects are what happens to a request, and whether the program must
// not notice. Effects of a single time must be overcome by repeating.
var faultEffects = []struct {
	name     string
	fault    emulator.Fault
	survived bool
}{
	{"delay", emulator.Fault{Delay: 300 * time.Millisecond}, true},
	{"500 once", emulator.Fault{Status: 500, Count: 1}, true},
	{"503 twice", emulator.Fault{Status: 503, Count: 2}, true},
	{"reset once", emulator.Fault{Reset: true, Count: 1}, true},
	{"reply lost once", emulator.Fault{LoseReply: true, Count: 1}, true},
	{"reply cut once", emulator.Fault{TruncateBody: true, Count: 1}, true},
	{"bits flipped", emulator.Fault{FlipBit: true, Count: 20}, false},
	{"denied", emulator.Fault{Status: 403, Code: "AccessDenied"}, false},
	{"second reset", emulator.Fault{Reset: true, Nth: 2}, true},
}

// TestFaults damages the requests of every operation, one verb and one kind of
// damage at a time: what is read is right or an error, what is stored is the
// old or the new object, whole, and new where the program was told so; and
// all of it ends soon.
func TestFaults(t *testing.T) {
	t.Parallel()
	fresh := random(t, largeSize)
	for _, op := range faultOps {
		for _, effect := range faultEffects {
			t.Run(op.name+"/"+effect.name, func(t *testing.T) {
				t.Parallel()
				for _, verb := range op.verbs {
					f := effect.fault
					f.Verb = verb
					testFault(t, op, verb, f, effect.survived, fresh)
				}
			})
		}
	}
}

// testFault runs one operation on a mount of its own, with one rule in force.
func testFault(t *testing.T, op faultOp, verb string, f emulator.Fault, survived bool, fresh []byte) {
	t.Helper()
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	m := mountStore(t, s.Env())
	// Written by a client that stores a checksum: without one, nothing but
	// the store's word says that the bytes are right.
	must(t, os.WriteFile(m.path("bucket", "there"), oldData, 0o644))
	must(t, os.WriteFile(m.path("bucket", "victim"), []byte("victim"), 0o644))
	m.stop() // and all that was cached is gone
	m.start("--metadata-ttl", "0s")
	// The proof that the bucket encrypts is done before, so that the fault
	// meets the operation.
	must(t, os.WriteFile(m.path("bucket", "warm"), nil, 0o644))
	must(t, os.Remove(m.path("bucket", "warm")))
	s.Inject(f)
	start := time.Now()
	err := op.do(m, fresh)
	took := time.Since(start)
	s.ClearFaults()
	switch {
	case errors.Is(err, errWrongBytes):
		t.Errorf("%s with %s damaged: %v", op.name, verb, err)
	case err != nil && survived:
		t.Errorf("%s with %s damaged: %v, want it overcome", op.name, verb, err)
	}
	if took > 30*time.Second {
		t.Errorf("%s with %s damaged took %v", op.name, verb, took)
	}
	if op.check != nil {
		op.check(t, other, fresh, err == nil)
	}
	// Afterwards all is as usual.
	name := m.path("bucket", "victim")
	if op.name == "remove" {
		name = m.path("bucket", "there")
	}
	if _, err := os.ReadFile(name); err != nil {
		t.Errorf("%s with %s damaged: a read afterwards: %v", op.name, verb, err)
	}
	m.stop()
}

// TestStalledReads meets a server that falls silent, before the reply and in
// the middle of it: the read is repeated and right, within two minutes.
func TestStalledReads(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]emulator.Fault{
		"before the reply": {Verb: "GetObject", Stall: true, Count: 1},
		"in the body":      {Verb: "GetObject", StallBody: true, Count: 1},
		"before the head":  {Verb: "HeadObject", Stall: true, Count: 1},
		"in the listing":   {Verb: "ListObjectsV2", StallBody: true, Count: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startEmulator(t, "aws")
			other := client(t, s.Env())
			other.makeBucket(t, "bucket")
			other.put(t, "bucket", "there", string(oldData))
			m := mountStore(t, s.Env())
			s.Inject(f)
			start := time.Now()
			_, err := os.ReadDir(m.path("bucket"))
			must(t, err)
			want(t, m.path("bucket", "there"), string(oldData))
			if took := time.Since(start); took > 2*time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestInterruptedRead kills a program that waits for a silent server: it ends
// at once, and the mount goes on meanwhile.
func TestInterruptedRead(t *testing.T) {
	t.Parallel()
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	other.put(t, "bucket", "there", string(oldData))
	other.put(t, "bucket", "elsewhere", "data")
	m := mountStore(t, s.Env())
	s.Inject(emulator.Fault{Verb: "GetObject", KeyPattern: "there", Stall: true})
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		cmd := exec.Command("cat", m.path("bucket", "there"))
		must(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		time.Sleep(300 * time.Millisecond) // long enough to be inside read(2)
		must(t, cmd.Process.Signal(sig))
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("cat ended well after %v, without data", sig)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("cat still waits 10 s after %v", sig)
		}
	}
	want(t, m.path("bucket", "elsewhere"), "data")
}
