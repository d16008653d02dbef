package e2e

import (
	"context"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// plainStores are stores that do not encrypt, each in its own way: one says
// yes to everything and does nothing, one refuses the question, and a real
// server ignores the headers.
var plainStores = map[string]func(testing.TB) watchedStore{
	"liar":      func(t testing.TB) watchedStore { return watchedEmulator(t, "liar") },
	"nosse":     func(t testing.TB) watchedStore { return watchedEmulator(t, "nosse") },
	"versitygw": watchedVersityGW,
}

// scratchPrefix begins the names of the objects that a proof puts.
const scratchPrefix = ".coffer-probe-"

// writes are the verbs that can carry a user's bytes into a store.
var writes = []string{"PutObject", "UploadPart", "CreateMultipartUpload", "CompleteMultipartUpload",
	"CopyObject", "UploadPartCopy", "PutObjectTagging", "DeleteObject", "DeleteObjects"}

// checkNothingLeft fails for every request that wrote to, or removed, anything
// but a scratch object.
func checkNothingLeft(t *testing.T, requests []seen) {
	t.Helper()
	for _, r := range requests {
		if !slices.Contains(writes, r.verb) || strings.HasPrefix(path.Base(r.key), scratchPrefix) {
			continue
		}
		if r.verb == "DeleteObjects" {
			continue // names its keys in the body; what is stored is compared below
		}
		t.Errorf("%s of %s/%s with %d bytes reached the store", r.verb, r.bucket, r.key, r.body)
	}
}

// TestRefusal tries every way to bring data into a bucket that does not
// encrypt: each fails with EACCES, and nothing of it reaches the store.
func TestRefusal(t *testing.T) {
	for name, start := range plainStores {
		t.Run(name, func(t *testing.T) {
			store := start(t)
			other := client(t, store.env)
			other.makeBucket(t, "plain") // by another program, before the mount
			other.put(t, "plain", "there", "was here before")
			before := other.keys(t, "plain")
			m := mountStore(t, store.env)
			mark := len(store.requests())

			_, err := os.OpenFile(m.path("plain", "new"), os.O_WRONLY|os.O_CREATE, 0o644)
			wantErrno(t, "create", err, syscall.EACCES)
			_, err = os.OpenFile(m.path("plain", "there"), os.O_WRONLY|os.O_TRUNC, 0)
			wantErrno(t, "open to replace", err, syscall.EACCES)
			_, err = os.OpenFile(m.path("plain", "there"), os.O_WRONLY|os.O_APPEND, 0)
			wantErrno(t, "open to append", err, syscall.EACCES)
			wantErrno(t, "truncate", os.Truncate(m.path("plain", "there"), 3), syscall.EACCES)
			wantErrno(t, "symlink", os.Symlink("secret", m.path("plain", "link")), syscall.EACCES)
			wantErrno(t, "setxattr", unix.Setxattr(m.path("plain", "there"), "user.note", []byte("secret"), 0), syscall.EACCES)
			wantErrno(t, "copy", os.WriteFile(m.path("plain", "again"), []byte("secret"), 0o644), syscall.EACCES)
			checkNothingLeft(t, store.requests()[mark:])

			if after := other.keys(t, "plain"); !maps.Equal(after, before) {
				t.Errorf("objects after the refusal: %v, want %v", after, before)
			}
			want(t, m.path("plain", "there"), "was here before")
			for _, p := range []string{m.path("plain"), m.path("plain", "there")} {
				if got := xattr(t, p, "user.s3.encryption"); got != "none" {
					t.Errorf("%s: user.s3.encryption is %q, want none", path.Base(p), got)
				}
			}
			m.stop() // and all of its log has arrived
			if n := strings.Count(m.log.String(), "allow-unencrypted"); n == 0 {
				t.Errorf("no log line says what to do about it:\n%s", m.log)
			}
		})
	}
}

// TestMkdirRefusedWhereUnencrypted makes buckets, by mkdir and by coffer mb,
// where they cannot be proved to encrypt: EACCES, and no bucket stays.
func TestMkdirRefusedWhereUnencrypted(t *testing.T) {
	for name, start := range plainStores {
		t.Run(name, func(t *testing.T) {
			store := start(t)
			other := client(t, store.env)
			other.makeBucket(t, "plain")
			m := mountStore(t, store.env)
			wantErrno(t, "mkdir", os.Mkdir(m.path("made-here"), 0o755), syscall.EACCES)
			code, _, stderr := coffers(t, m.env, "mb", "s3://by-command")
			if code != 5 || !strings.Contains(stderr, "encrypt") {
				t.Errorf("coffer mb: exit code %d, want 5; %s", code, stderr)
			}
			if got := other.buckets(t); !slices.Equal(got, []string{"plain"}) {
				t.Errorf("buckets afterwards: %q, want the one that was there", got)
			}
			// Making one that exists is another mistake, and touches nothing.
			wantErrno(t, "mkdir of what exists", os.Mkdir(m.path("plain"), 0o755), syscall.EEXIST)
			m.stop() // and all of its log has arrived
			if n := strings.Count(m.log.String(), "made-here"); n == 0 {
				t.Errorf("no log line tells why:\n%s", m.log)
			}
		})
	}
}

// TestMkdirProvesEncryption makes a bucket where the store encrypts: it is
// asked to, the proof is an object that was put and looked at, and nothing of
// the proof stays.
func TestMkdirProvesEncryption(t *testing.T) {
	store := watchedEmulator(t, "aws")
	m := mountStore(t, store.env)
	must(t, os.Mkdir(m.path("made-here"), 0o755))
	verbs := map[string]int{}
	for _, r := range store.requests() {
		if r.bucket == "made-here" && r.status < 300 {
			verbs[r.verb]++
			if r.verb == "PutObject" && !strings.HasPrefix(path.Base(r.key), scratchPrefix) {
				t.Errorf("an object %q was put", r.key)
			}
		}
	}
	for _, verb := range []string{"CreateBucket", "PutBucketEncryption", "PutObject"} {
		if verbs[verb] == 0 {
			t.Errorf("no %s; the store saw %v", verb, verbs)
		}
	}
	if got := client(t, m.env).keys(t, "made-here"); len(got) != 0 {
		t.Errorf("the new bucket holds %v", got)
	}
	if got := xattr(t, m.path("made-here"), "user.s3.encryption"); got != "SSE-S3" {
		t.Errorf("user.s3.encryption is %q, want SSE-S3", got)
	}
}

// TestAllowUnencrypted lets plaintext through where that is asked for by name,
// and says what it is.
func TestAllowUnencrypted(t *testing.T) {
	for name, start := range plainStores {
		t.Run(name, func(t *testing.T) {
			store := start(t)
			other := client(t, store.env)
			other.makeBucket(t, "plain")
			m := mountStore(t, store.env, "--allow-unencrypted")
			write(t, m.path("plain", "f"), "open to all")
			if got := other.get(t, "plain", "f"); got != "open to all" {
				t.Errorf("stored: %q", got)
			}
			must(t, os.Mkdir(m.path("made-here"), 0o755))
			write(t, m.path("made-here", "f"), "as well")
			for _, p := range []string{m.path("plain"), m.path("plain", "f"), m.path("made-here"), m.path("made-here", "f")} {
				if got := xattr(t, p, "user.s3.encryption"); got != "none" {
					t.Errorf("%s: user.s3.encryption is %q, want none", p, got)
				}
				if got := xattr(t, p, "user.s3.sse"); got != "" {
					t.Errorf("%s: user.s3.sse is %q, want it absent", p, got)
				}
			}
			m.stop()
			for b, wantKeys := range map[string]map[string]int64{"plain": {"f": 11}, "made-here": {"f": 7}} {
				if got := other.keys(t, b); !maps.Equal(got, wantKeys) {
					t.Errorf("bucket %s holds %v, want %v", b, got, wantKeys)
				}
			}
			if out, err := m.run("mb", "--allow-unencrypted", "s3://by-command"); err != nil {
				t.Errorf("coffer mb: %v, %s", err, out)
			}
		})
	}
}

// TestRefusalCanBeWatched proves that the record of requests shows a user's
// bytes where they do leave: without that, TestRefusal would prove nothing.
func TestRefusalCanBeWatched(t *testing.T) {
	for name, start := range plainStores {
		t.Run(name, func(t *testing.T) {
			store := start(t)
			client(t, store.env).makeBucket(t, "plain")
			m := mountStore(t, store.env, "--allow-unencrypted")
			write(t, m.path("plain", "f"), strings.Repeat("x", 5000))
			found := false
			for _, r := range store.requests() {
				found = found || r.verb == "PutObject" && r.bucket == "plain" && r.key == "f" && r.body >= 5000
			}
			if !found {
				t.Errorf("5000 bytes were stored and not seen: %+v", store.requests())
			}
		})
	}
}

// buckets returns the names of all buckets.
func (i independent) buckets(t testing.TB) []string {
	t.Helper()
	infos, err := i.c.ListBuckets(context.Background())
	must(t, err)
	names := []string{}
	for _, b := range infos {
		names = append(names, b.Name)
	}
	return names
}
