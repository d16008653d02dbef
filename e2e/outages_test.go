package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

// outage is a moment at which the store is no longer there for a mount.
type outage struct {
	name      string
	verb, key string // the request that it happens at
	do        func(m *mount) error
	before    objects
	after     objects // when all is well again
	// refused accepts what there may be when it was not.
	refused func(objects) bool
}

func outages(t *testing.T) []outage {
	fresh, long := random(t, largeSize), random(t, 24<<20)
	changed := bytes.Clone(long)
	copy(changed[12<<20:], "CHANGED")
	was, isLong := objects{"there": string(oldData)}, objects{"there": string(long)}
	overwrite := func(n int) func(m *mount) error {
		return func(m *mount) error { return os.WriteFile(m.path("bucket", "there"), fresh[:n], 0o644) }
	}
	change := func(m *mount) error {
		f, err := os.OpenFile(m.path("bucket", "there"), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("CHANGED"), 12<<20)
		return errors.Join(err, f.Close())
	}
	rename := func(m *mount) error { return os.Rename(m.path("bucket", "there"), m.path("bucket", "moved")) }
	written, small := objects{"there": string(fresh)}, objects{"there": string(fresh[:100_000])}
	moved := objects{"moved": string(oldData)}
	return []outage{
		{"put", "PutObject", "there", overwrite(100_000), was, small, anyOf(was)},
		{"upload begins", "CreateMultipartUpload", "there", overwrite(largeSize), was, written, anyOf(was)},
		{"part", "UploadPart", "there", overwrite(largeSize), was, written, anyOf(was)},
		{"complete", "CompleteMultipartUpload", "there", overwrite(largeSize), was, written, anyOf(was)},
		{"copy of a part", "UploadPartCopy", "there", change, isLong, objects{"there": string(changed)}, anyOf(isLong)},
		{"rename, copy", "CopyObject", "moved", rename, was, moved, anyOf(was)},
		{"rename, delete", "DeleteObject", "there", rename, was, moved, anyOf(was, objects{"there": string(oldData), "moved": string(oldData)})},
	}
}

// begin mounts a store with what there is before.
func (o outage) begin(t *testing.T, s *emulator.Server) (*mount, independent) {
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	for key, data := range o.before {
		other.put(t, "bucket", key, data)
	}
	m := mountStore(t, s.Env())
	// The proofs that the bucket encrypts are done before.
	write(t, m.path("bucket", "a"), "")
	must(t, os.Rename(m.path("bucket", "a"), m.path("bucket", "b")))
	must(t, os.Remove(m.path("bucket", "b")))
	return m, other
}

// end compares the bucket with what there may be and the mount shows.
func (o outage) end(t *testing.T, m *mount, other independent, ok func(objects) bool) {
	got := other.objects(t)
	if !ok(got) {
		t.Errorf("the bucket is in no state that it may be in: %s", got)
	}
	if names := list(t, m.path("bucket")); len(names) != len(got) {
		t.Errorf("the mount shows %q", names)
	}
	for key, data := range got {
		want(t, m.path("bucket", key), data)
	}
	write(t, m.path("bucket", "afterwards"), "works")
	m.stop()
}

// TestStoreRestarts ends the store in the middle of everything that writes, when
// a request has come and before it is carried out, or after that and before the
// answer, and starts it anew: the program notices nothing.
func TestStoreRestarts(t *testing.T) {
	t.Parallel()
	for _, o := range outages(t) {
		for _, done := range []bool{false, true} {
			name := o.name
			if done {
				name += ", answer lost"
			}
			if done && o.verb == "CreateMultipartUpload" {
				continue // the upload is nobody's then
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel() // most of the time is waiting
				cfg := emulator.Config{Dir: filepath.Join(storetest.DataDir(t), "emulator"), AccessKeyID: "key", SecretAccessKey: "secret"}
				start := func(addr string) *emulator.Server {
					s, err := emulator.New(cfg)
					must(t, err)
					t.Cleanup(func() { s.Close() })
					must(t, s.Listen(addr))
					return s
				}
				s := start("127.0.0.1:0")
				m, other := o.begin(t, s)
				hold := emulator.Fault{Verb: o.verb, KeyPattern: o.key, Stall: true}
				strikes := 1
				if done {
					s.Inject(emulator.Fault{Verb: o.verb, KeyPattern: o.key, LoseReply: true, Nth: 1})
					hold.Nth, strikes = 2, 2 // its repetition
				}
				s.Inject(hold)
				ended := make(chan error, 1)
				go func() { ended <- o.do(m) }()
				await(t, "the request", func() bool { return s.Strikes() >= strikes })
				must(t, s.Close())
				time.Sleep(200 * time.Millisecond) // some attempts find nobody
				start(strings.TrimPrefix(s.Endpoint(), "http://"))
				select {
				case err := <-ended:
					must(t, err)
				case <-time.After(time.Minute):
					t.Fatal("the program still waits, a minute after the store is back")
				}
				o.end(t, m, other, anyOf(o.after))
				for u := range other.c.ListIncompleteUploads(t.Context(), "bucket", "", true) {
					t.Errorf("an upload is left: %s, %v", u.Key, u.Err)
				}
			})
		}
	}
}

// TestCredentialsRevoked refuses every request from the moment on at which one
// of a kind comes: the program is told, what was there before is there, and with
// the credentials back all is as usual.
func TestCredentialsRevoked(t *testing.T) {
	t.Parallel()
	for _, o := range outages(t) {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s := startEmulator(t, "aws")
			m, other := o.begin(t, s)
			s.Inject(emulator.Fault{Verb: o.verb, KeyPattern: o.key, Delay: 200 * time.Millisecond, Code: "InvalidAccessKeyId"})
			ended := make(chan error, 1)
			go func() { ended <- o.do(m) }()
			await(t, "the request", func() bool { return s.Strikes() > 0 })
			s.Inject(emulator.Fault{Code: "InvalidAccessKeyId"})
			select {
			case err := <-ended:
				wantErrno(t, "without credentials", err, syscall.EACCES)
			case <-time.After(time.Minute):
				t.Fatal("the program still waits")
			}
			s.ClearFaults()
			o.end(t, m, other, o.refused)
		})
	}
}
