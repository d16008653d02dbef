package s3store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/emulator"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// emulated starts an emulator with one bucket, and a store that knows what the
// emulator honours already, so that a test sees its own requests alone.
func emulated(t *testing.T, dialect string, cfg Config) (*emulator.Server, *Store, objstore.Bucket) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "coffer-s3store-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	srv, err := emulator.New(emulator.Config{Dir: dir, Dialect: dialect})
	require.NoError(t, err)
	require.NoError(t, srv.Listen("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	s := testStore(t, srv.Env(), cfg)
	_, err = s.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{AllowUnencrypted: true})
	require.NoError(t, err)
	b, err := s.Open(t.Context(), "bucket")
	require.NoError(t, err)
	srv.ResetRequests()
	return srv, s, b
}

// count returns how many requests of a verb the emulator has answered or cut.
func count(srv *emulator.Server, verb string) int {
	n := 0
	for _, r := range srv.Requests() {
		if r.Verb == verb {
			n++
		}
	}
	return n
}

func TestGetSurvives(t *testing.T) {
	data := random(3 << 20)
	faults := map[string]emulator.Fault{
		"truncated body":   {TruncateBody: true, Count: 3},
		"stalled body":     {StallBody: true, Count: 2},
		"reset":            {Reset: true, Count: 2},
		"no reply":         {Stall: true, Count: 1},
		"lost reply":       {LoseReply: true, Count: 2},
		"500":              {Status: 500, Count: 3},
		"slow down":        {Status: 503, Code: "SlowDown", Count: 1},
		"429":              {Status: 429, Code: "TooManyRequests", Count: 1},
		"503 without code": {Status: 502, Count: 1},
	}
	srv, _, b := emulated(t, "aws", Config{})
	o := put(t, b, "key", data, objstore.CreateOptions{})
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			defer srv.ClearFaults()
			f.Verb = "GetObject"
			ranges := []objstore.Range{{}, {Offset: 1000, Length: 1 << 20}, {Offset: 5}}
			if f.Stall || f.Code != "" {
				ranges = ranges[1:2] // slow ones, and the range makes no difference
			}
			for _, r := range ranges {
				srv.ClearFaults()
				srv.Inject(f)
				srv.ResetRequests()
				end := int64(len(data))
				if r.Length > 0 {
					end = r.Offset + r.Length
				}
				require.Equal(t, data[r.Offset:end], get(t, b, o.Ref(""), r))
				require.Greater(t, count(srv, "GetObject"), 1)
			}
		})
	}
}

// TestListSurvivesSilence stalls a listing in the middle of its reply: it is
// asked for again, long before the operation's deadline.
func TestListSurvivesSilence(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{})
	put(t, b, "key", random(10), objstore.CreateOptions{})
	srv.Inject(emulator.Fault{Verb: "ListObjectsV2", StallBody: true, Count: 2})
	start := time.Now()
	var keys []string
	for e, err := range b.List(t.Context(), objstore.Query{}) {
		require.NoError(t, err)
		keys = append(keys, e.Key)
	}
	require.Equal(t, []string{"key"}, keys)
	require.Less(t, time.Since(start), 20*time.Second)
}

func TestGetNeverReturnsDamagedWholeObject(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{})
	o := put(t, b, "key", random(1<<20), objstore.CreateOptions{})
	require.NotEmpty(t, o.Checksum)
	srv.Inject(emulator.Fault{Verb: "GetObject", FlipBit: true})
	_, err := tryGet(t.Context(), b, o.Ref(""), objstore.Range{})
	require.ErrorIs(t, err, objstore.Integrity)
}

func TestGetStopsWhenReplacedInTheMiddle(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{})
	put(t, b, "key", random(1<<20), objstore.CreateOptions{})
	rc, _, err := b.Get(t.Context(), objstore.Ref{Key: "key"}, objstore.GetOptions{})
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	srv.Inject(emulator.Fault{Verb: "GetObject", TruncateBody: true, Count: 1})
	rc, _, err = b.Get(t.Context(), objstore.Ref{Key: "key"}, objstore.GetOptions{})
	require.NoError(t, err)
	defer rc.Close()
	put(t, b, "key", random(2<<20), objstore.CreateOptions{})
	buf := make([]byte, 1<<20)
	for err == nil {
		_, err = rc.Read(buf)
	}
	require.ErrorIs(t, err, objstore.Stale)
}

func TestGetGivesUpAtTheDeadline(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{OperationTimeout: time.Second})
	put(t, b, "key", random(1000), objstore.CreateOptions{})
	for name, f := range map[string]struct {
		fault emulator.Fault
		kind  objstore.Kind
	}{
		"slow down":  {emulator.Fault{Status: 503, Code: "SlowDown"}, objstore.Throttled},
		"500":        {emulator.Fault{Status: 500}, objstore.Unavailable},
		"reset":      {emulator.Fault{Reset: true}, objstore.Unavailable},
		"never ends": {emulator.Fault{Stall: true}, objstore.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			defer srv.ClearFaults()
			srv.Inject(f.fault)
			within(t, 4*time.Second, func() {
				_, err := tryGet(t.Context(), b, objstore.Ref{Key: "key"}, objstore.Range{})
				require.ErrorIs(t, err, f.kind)
			})
		})
	}
}

func TestCancelEndsEverything(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{})
	put(t, b, "key", random(1<<20), objstore.CreateOptions{})
	srv.Inject(emulator.Fault{Status: 500}, emulator.Fault{Verb: "GetObject", Stall: true})
	for name, f := range map[string]func(context.Context) error{
		"head": func(ctx context.Context) error { _, err := b.Head(ctx, objstore.Ref{Key: "key"}); return err },
		"get": func(ctx context.Context) error {
			_, err := tryGet(ctx, b, objstore.Ref{Key: "key"}, objstore.Range{})
			return err
		},
		"put": func(ctx context.Context) error {
			_, err := tryPut(ctx, b, "key2", nil, objstore.CreateOptions{})
			return err
		},
		"list": func(ctx context.Context) error {
			for _, err := range b.List(ctx, objstore.Query{}) {
				return err
			}
			return nil
		},
		"delete": func(ctx context.Context) error { return errors.Join(b.Delete(ctx, objstore.Ref{Key: "key"})...) },
		"copy": func(ctx context.Context) error {
			_, err := b.Copy(ctx, "k", objstore.Ref{Key: "key"}, objstore.CopyOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			within(t, time.Second, func() { require.ErrorIs(t, f(ctx), objstore.Canceled) })
		})
	}
}

func TestPutSurvivesLostReplies(t *testing.T) {
	big := random(6 << 20)
	for _, c := range []struct {
		name string
		data []byte
		verb string
		cond objstore.Condition
	}{
		{"put", random(1000), "PutObject", objstore.Condition{}},
		{"exclusive put", random(1000), "PutObject", objstore.Condition{IfAbsent: true}},
		{"parts", big, "UploadPart", objstore.Condition{IfAbsent: true}},
		{"complete", big, "CompleteMultipartUpload", objstore.Condition{}},
		{"exclusive complete", big, "CompleteMultipartUpload", objstore.Condition{IfAbsent: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
			srv.Inject(emulator.Fault{Verb: c.verb, LoseReply: true, Nth: 1})
			o := put(t, b, "key", c.data, objstore.CreateOptions{Cond: c.cond, Meta: map[string]string{"a": "b"}})
			require.Greater(t, count(srv, c.verb), 1)
			assert.Equal(t, objstore.ModeSSES3, o.Encryption.Mode)
			require.Equal(t, c.data, get(t, b, o.Ref(""), objstore.Range{}))
		})
	}
	t.Run("a repeated put does not take another's object for its own", func(t *testing.T) {
		srv, _, b := emulated(t, "aws", Config{})
		put(t, b, "key", random(999), objstore.CreateOptions{})
		srv.Inject(emulator.Fault{Verb: "PutObject", Status: 500, Nth: 1})
		_, err := tryPut(t.Context(), b, "key", random(1000), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
		require.ErrorIs(t, err, objstore.Exist)
	})
	t.Run("the same bytes by somebody else are not ours without a repetition", func(t *testing.T) {
		_, _, b := emulated(t, "aws", Config{})
		put(t, b, "key", random(999), objstore.CreateOptions{})
		_, err := tryPut(t.Context(), b, "key", random(999), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
		require.ErrorIs(t, err, objstore.Exist)
	})
	t.Run("replacing", func(t *testing.T) {
		srv, _, b := emulated(t, "aws", Config{})
		o := put(t, b, "key", random(999), objstore.CreateOptions{})
		srv.Inject(emulator.Fault{Verb: "PutObject", LoseReply: true, Nth: 1})
		put(t, b, "key", random(1000), objstore.CreateOptions{Cond: objstore.Condition{IfMatch: o.ETag}})
	})
}

// A store that misses parts which it has acknowledged has lost the upload to
// somebody's abort, whichever of the two it removes first.
func TestUploadAbortedByOthers(t *testing.T) {
	for _, code := range []string{"NoSuchUpload", "InvalidPart"} {
		srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
		srv.Inject(emulator.Fault{Verb: "CompleteMultipartUpload", Code: code})
		_, err := tryPut(t.Context(), b, "key", random(6<<20), objstore.CreateOptions{})
		require.ErrorIs(t, err, objstore.NotExist, code)
		require.ErrorContains(t, err, code)
	}
}

func TestFailedUploadLeavesNothing(t *testing.T) {
	srv, s, b := emulated(t, "aws", Config{PartSize: minPartSize, OperationTimeout: time.Second})
	srv.Inject(emulator.Fault{Verb: "UploadPart", Status: 403, Code: "AccessDenied", Nth: 2})
	w, err := b.Create(t.Context(), "key", objstore.CreateOptions{})
	require.NoError(t, err)
	chunk := random(1 << 20)
	for range 20 {
		if _, err = w.Write(chunk); err != nil {
			break
		}
	}
	if err == nil {
		_, err = w.Commit(t.Context())
	}
	require.ErrorIs(t, err, objstore.Permission)
	_, again := w.Write(chunk)
	require.Error(t, again)
	_, again = w.Commit(t.Context())
	require.Error(t, again)
	require.NoError(t, w.Abort())
	for range s.ListUploads(t.Context(), "bucket", "") {
		t.Error("an upload was left behind")
	}
	require.Empty(t, list(t, b, objstore.Query{}))
}

func TestCanceledUploadIsAborted(t *testing.T) {
	srv, s, b := emulated(t, "aws", Config{PartSize: minPartSize})
	srv.Inject(emulator.Fault{Verb: "UploadPart", Stall: true})
	ctx, cancel := context.WithCancel(t.Context())
	w, err := b.Create(ctx, "key", objstore.CreateOptions{})
	require.NoError(t, err)
	_, err = w.Write(random(minPartSize + 1))
	require.NoError(t, err)
	time.AfterFunc(50*time.Millisecond, cancel)
	within(t, 2*time.Second, func() {
		_, err = w.Commit(t.Context())
		require.ErrorIs(t, err, objstore.Canceled)
	})
	for range s.ListUploads(t.Context(), "bucket", "") {
		t.Error("an upload was left behind")
	}
}

// No byte of a user reaches a bucket that does not encrypt.
func TestNothingLeavesForAStoreThatDoesNotEncrypt(t *testing.T) {
	const secret = "these are the bytes that must not leave"
	for _, dialect := range []string{"liar", "nosse"} {
		t.Run(dialect, func(t *testing.T) {
			srv, s, _ := emulated(t, dialect, Config{})
			_, err := s.CreateBucket(t.Context(), "fresh", objstore.CreateBucketOptions{})
			require.ErrorIs(t, err, objstore.Unencrypted)
			_, err = s.Open(t.Context(), "fresh")
			require.ErrorIs(t, err, objstore.NotExist, "the bucket was removed again")

			for _, rules := range [][]Rule{nil, {{Pattern: "buck*", Encryption: objstore.Encryption{Mode: objstore.ModeSSES3}}}} {
				s := testStore(t, srv.Env(), Config{Rules: rules})
				b, err := s.Open(t.Context(), "bucket")
				require.NoError(t, err)
				srv.ResetRequests()
				_, err = tryPut(t.Context(), b, "user-file", []byte(secret), objstore.CreateOptions{})
				require.ErrorIs(t, err, objstore.Unencrypted)
				enc, err := b.Protection(t.Context(), "user-file")
				require.ErrorIs(t, err, objstore.Unencrypted)
				require.Equal(t, objstore.ModeNone, enc.Mode)
				for _, r := range srv.Requests() {
					require.False(t, r.Key != "" && !strings.HasPrefix(r.Key, objstore.ScratchPrefix), "%s %s", r.Verb, r.Key)
				}
				require.Empty(t, list(t, b, objstore.Query{}))
			}
			for name, cfg := range map[string]Config{
				"allowed":         {AllowUnencrypted: true},
				"allowed by rule": {Rules: []Rule{{Pattern: "bucket/user", AllowUnencrypted: true}}},
				"none by name":    {Rules: []Rule{{Pattern: "bucket", Encryption: objstore.Encryption{Mode: objstore.ModeNone}}}},
			} {
				t.Run(name, func(t *testing.T) {
					s := testStore(t, srv.Env(), cfg)
					b, err := s.Open(t.Context(), "bucket")
					require.NoError(t, err)
					o := put(t, b, "user-file", []byte(secret), objstore.CreateOptions{})
					h, err := b.Head(t.Context(), o.Ref(""))
					require.NoError(t, err)
					require.Equal(t, objstore.ModeNone, h.Encryption.Mode)
				})
			}
		})
	}
}

func TestProbesLeaveNothingAndAreAskedForOnce(t *testing.T) {
	srv, s, b := emulated(t, "aws", Config{ProbePrefix: "dir/"})
	fresh := testStore(t, srv.Env(), s.cfg)
	fb, err := fresh.Open(t.Context(), "bucket")
	require.NoError(t, err)
	srv.ResetRequests()
	done := make(chan error)
	for range 8 {
		go func() { _, err := fb.Protection(t.Context(), "k"); done <- err }()
	}
	for range 8 {
		require.NoError(t, <-done)
	}
	probes := map[string]bool{}
	for _, r := range srv.Requests() {
		if strings.HasPrefix(r.Key, "dir/"+objstore.ScratchPrefix) {
			probes[r.Key] = true
		}
	}
	require.Len(t, probes, 1)
	require.Empty(t, list(t, b, objstore.Query{}))
	srv.ResetRequests()
	put(t, fb, "k", []byte("x"), objstore.CreateOptions{})
	require.Len(t, srv.Requests(), 1, "a small file costs one request: %v", srv.Requests())
}

func TestExpiredCredentialsAreReadAgain(t *testing.T) {
	srv, _, b0 := emulated(t, "aws", Config{})
	put(t, b0, "key", []byte("data"), objstore.CreateOptions{})
	env := map[string]string{}
	for _, kv := range srv.Env() {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(id string) {
		text := "[default]\naws_access_key_id = " + id + "\naws_secret_access_key = " + env["AWS_SECRET_ACCESS_KEY"] + "\n"
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
	write("AKIAOLD")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	s, err := New(t.Context(), Config{OperationTimeout: 5 * time.Second})
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Open(t.Context(), "bucket")
	require.ErrorIs(t, err, objstore.Permission)
	s.creds.now = func() time.Time { return time.Now().Add(doubtInterval) }

	write(env["AWS_ACCESS_KEY_ID"])
	b, err := s.Open(t.Context(), "bucket")
	require.NoError(t, err)
	require.Equal(t, []byte("data"), get(t, b, objstore.Ref{Key: "key"}, objstore.Range{}))

	srv.Inject(emulator.Fault{Verb: "GetObject", Status: 400, Code: "ExpiredToken"})
	s.creds.now = func() time.Time { return time.Now().Add(2 * doubtInterval) }
	_, err = tryGet(t.Context(), b, objstore.Ref{Key: "key"}, objstore.Range{})
	require.ErrorIs(t, err, objstore.Expired)
}

func TestConflictsAreRepeatedAFewTimes(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{})
	srv.Inject(emulator.Fault{Verb: "PutObject", Status: 409, Code: "ConditionalRequestConflict", Count: 2})
	put(t, b, "key", []byte("x"), objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
	srv.Inject(emulator.Fault{Verb: "PutObject", Status: 409, Code: "ConditionalRequestConflict"})
	_, err := tryPut(t.Context(), b, "key2", []byte("x"), objstore.CreateOptions{})
	require.ErrorIs(t, err, objstore.Conflict)
}

// Two writers of the same bytes, one of whom is answered 409 or 503 before it
// meets the other's object: what is there is not its own.
func TestLoserOfARaceIsNotTakenForTheWinner(t *testing.T) {
	for _, code := range []string{"ConditionalRequestConflict", "SlowDown"} {
		for name, size := range map[string]int{"single": 0, "parts": minPartSize + 1} {
			t.Run(code+" "+name, func(t *testing.T) {
				srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
				put(t, b, "key", random(size), objstore.CreateOptions{})
				srv.Inject(emulator.Fault{Verb: "PutObject", Code: code, Count: 1}, emulator.Fault{Verb: "CompleteMultipartUpload", Code: code, Count: 1})
				w, err := b.Create(t.Context(), "key", objstore.CreateOptions{Cond: objstore.Condition{IfAbsent: true}})
				require.NoError(t, err)
				_, err = w.Write(random(size))
				require.NoError(t, err)
				_, err = w.Commit(t.Context())
				require.ErrorIs(t, err, objstore.Exist)
			})
		}
	}
}

func TestThrottlingStormEndsWell(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{OperationTimeout: 30 * time.Second})
	srv.Inject(emulator.Fault{Verb: "PutObject", Code: "SlowDown", Status: 503, Probability: 0.5, Seed: 7, Count: 30})
	errs := make(chan error)
	for i := range 40 {
		go func() {
			_, err := tryPut(t.Context(), b, "storm/"+string(rune('a'+i)), []byte("x"), objstore.CreateOptions{})
			errs <- err
		}()
	}
	for range 40 {
		require.NoError(t, <-errs)
	}
}

// A copy or a Complete that fails late says so in the body of a reply of 200:
// it is an error like any other, and what may pass is repeated.
func TestErrorInTheBodyOf200(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
	data := random(minPartSize + 1)
	put(t, b, "src", data, objstore.CreateOptions{})
	_, err := b.Copy(t.Context(), "warm", objstore.Ref{Key: "src"}, objstore.CopyOptions{})
	require.NoError(t, err)
	for verb, do := range map[string]func(key string) error{
		"CopyObject": func(key string) error {
			_, err := b.Copy(t.Context(), key, objstore.Ref{Key: "src"}, objstore.CopyOptions{})
			return err
		},
		"CompleteMultipartUpload": func(key string) error {
			_, err := tryPut(t.Context(), b, key, data, objstore.CreateOptions{})
			return err
		},
	} {
		t.Run(verb, func(t *testing.T) {
			srv.Inject(emulator.Fault{Verb: verb, Code: "InternalError", ErrorIn200: true, Count: 2})
			require.NoError(t, do(verb))
			require.Equal(t, data, get(t, b, objstore.Ref{Key: verb}, objstore.Range{}))
			srv.ClearFaults()
			for code, kind := range map[string]objstore.Kind{
				"AccessDenied": objstore.Permission, "KMS.DisabledException": objstore.KeyUnavailable, "PreconditionFailed": objstore.Stale,
				"InvalidRequest": objstore.Unavailable, "EntityTooLarge": objstore.TooLarge, "QuotaExceeded": objstore.Quota,
			} {
				srv.ResetRequests()
				srv.Inject(emulator.Fault{Verb: verb, Code: code, ErrorIn200: true})
				require.ErrorIs(t, do(verb+"-refused"), kind, code)
				require.Equal(t, 1, count(srv, verb), "%s is not repeated", code)
				srv.ClearFaults()
				_, err := b.Head(t.Context(), objstore.Ref{Key: verb + "-refused"})
				require.ErrorIs(t, err, objstore.NotExist)
			}
		})
	}
}

// TestErrorInTheBodyOf200OfObjects is the same for what comes by the thousand.
// What was there stays, and is not taken for what was sent.
func TestErrorInTheBodyOf200OfObjects(t *testing.T) {
	srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
	old, data := random(10), random(minPartSize+1)
	for verb, c := range map[string]struct {
		do   func(key string) error
		want []byte // nil for no object
	}{
		"PutObject": {func(key string) error {
			_, err := tryPut(t.Context(), b, key, data[:1000], objstore.CreateOptions{})
			return err
		}, data[:1000]},
		"UploadPart": {func(key string) error {
			_, err := tryPut(t.Context(), b, key, data, objstore.CreateOptions{})
			return err
		}, data},
		"DeleteObject": {func(key string) error { return b.Delete(t.Context(), objstore.Ref{Key: key})[0] }, nil},
	} {
		t.Run(verb, func(t *testing.T) {
			defer srv.ClearFaults()
			put(t, b, verb, old, objstore.CreateOptions{})
			srv.ResetRequests()
			srv.Inject(emulator.Fault{Verb: verb, Code: "InternalError", ErrorIn200: true, Count: 1})
			require.NoError(t, c.do(verb))
			require.Greater(t, count(srv, verb), 1)
			if c.want != nil {
				require.Equal(t, c.want, get(t, b, objstore.Ref{Key: verb}, objstore.Range{}))
			} else {
				_, err := b.Head(t.Context(), objstore.Ref{Key: verb})
				require.ErrorIs(t, err, objstore.NotExist)
			}
			srv.ClearFaults()
			put(t, b, verb, old, objstore.CreateOptions{})
			srv.Inject(emulator.Fault{Verb: verb, Code: "AccessDenied", ErrorIn200: true})
			require.ErrorIs(t, c.do(verb), objstore.Permission)
			require.Equal(t, old, get(t, b, objstore.Ref{Key: verb}, objstore.Range{}))
		})
	}
}

// A clock that is hours off is no obstacle: the store's own time is in its
// refusal.
func TestClockThatIsOff(t *testing.T) {
	srv, _, _ := emulated(t, "aws", Config{})
	for _, d := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		srv.SetSkew(d)
		b, err := testStore(t, srv.Env(), Config{}).Open(t.Context(), "bucket")
		require.NoError(t, err)
		put(t, b, "key", []byte("data"), objstore.CreateOptions{})
		require.Equal(t, "data", string(get(t, b, objstore.Ref{Key: "key"}, objstore.Range{})))
	}
}
