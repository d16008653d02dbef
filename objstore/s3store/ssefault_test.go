package s3store

import (
	"testing"
	"time"

	"coffer/objstore"
	"coffer/objstore/emulator"

	"github.com/stretchr/testify/require"
)

// A store that encrypts and then does not any more: whatever is written is
// looked at, and what is not protected is removed.
func TestStoreThatStopsEncrypting(t *testing.T) {
	for name, c := range map[string]struct {
		fault emulator.Fault
		size  int
	}{
		"put":                   {emulator.Fault{Verb: "PutObject", DropSSE: true}, 10},
		"parts":                 {emulator.Fault{Verb: "CreateMultipartUpload", DropSSE: true}, minPartSize + 1},
		"HEAD shows it no more": {emulator.Fault{HideSSE: true}, 10},
		"parts, HEAD likewise":  {emulator.Fault{HideSSE: true}, minPartSize + 1},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize})
			put(t, b, "before", random(10), objstore.CreateOptions{})
			srv.Inject(c.fault)
			_, err := tryPut(t.Context(), b, "key", random(c.size), objstore.CreateOptions{})
			require.ErrorIs(t, err, objstore.Unencrypted)
			require.ErrorContains(t, err, `stored as "none", not as "encrypted" (removed: true)`)
			srv.ClearFaults()
			require.Equal(t, []string{"before"}, list(t, b, objstore.Query{}))
			put(t, b, "key", random(c.size), objstore.CreateOptions{})
		})
	}
}

// Whatever is wrong with a key of the KMS has a kind of its own and the KMS's
// own words, for writing and for reading, and passes when the key is back.
func TestKMSKeysThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(t *testing.T, srv *emulator.Server, arn string)
		mend func(t *testing.T, srv *emulator.Server, arn string)
		kind objstore.Kind
		text string
	}{
		"disabled": {
			func(t *testing.T, srv *emulator.Server, arn string) { require.NoError(t, srv.DisableKMSKey(arn)) },
			func(t *testing.T, srv *emulator.Server, arn string) { require.NoError(t, srv.EnableKMSKey(arn)) },
			objstore.KeyUnavailable, "is disabled",
		},
		"denied": {
			func(t *testing.T, srv *emulator.Server, arn string) { require.NoError(t, srv.DenyKMS(arn, true)) },
			func(t *testing.T, srv *emulator.Server, arn string) { require.NoError(t, srv.DenyKMS(arn, false)) },
			objstore.Permission, "AccessDenied",
		},
		"pending deletion": {
			func(t *testing.T, srv *emulator.Server, arn string) {
				require.NoError(t, srv.ScheduleKMSKeyDeletion(arn))
			},
			nil, objstore.KeyUnavailable, "pending deletion",
		},
		"throttled": {
			func(t *testing.T, srv *emulator.Server, _ string) {
				srv.Inject(emulator.Fault{Verb: "kms:GenerateDataKey", Code: "ThrottlingException"}, emulator.Fault{Verb: "kms:Decrypt", Code: "ThrottlingException"})
			},
			func(_ *testing.T, srv *emulator.Server, _ string) { srv.ClearFaults() },
			objstore.Throttled, "ThrottlingException",
		},
		"unreachable": {
			func(t *testing.T, srv *emulator.Server, _ string) {
				srv.Inject(emulator.Fault{Verb: "kms:GenerateDataKey", Code: "KMSInternalException", Status: 500}, emulator.Fault{Verb: "kms:Decrypt", Code: "KMSInternalException", Status: 500})
			},
			func(_ *testing.T, srv *emulator.Server, _ string) { srv.ClearFaults() },
			objstore.Unavailable, "KMS",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{OperationTimeout: 2 * time.Second, ProbeTimeout: 2 * time.Second, Rules: []Rule{
				{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "alias/key"}}}}
			srv, s := emulatedWithKey(t, cfg)
			arn := srv.arn
			b, err := s.Open(t.Context(), "bucket")
			require.NoError(t, err)
			put(t, b, "key", []byte("data"), objstore.CreateOptions{})
			c.fail(t, srv.Server, arn)
			_, err = tryPut(t.Context(), b, "new", []byte("data"), objstore.CreateOptions{})
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.text)
			_, err = tryGet(t.Context(), b, objstore.Ref{Key: "key"}, objstore.Range{})
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.text)
			// Nor may the bucket be proved to encrypt now.
			fresh, err := testStore(t, srv.Env(), cfg).Open(t.Context(), "bucket")
			require.NoError(t, err)
			_, err = fresh.Protection(t.Context(), "new")
			require.ErrorIs(t, err, c.kind)
			require.ErrorContains(t, err, c.text)
			if c.mend == nil {
				return
			}
			c.mend(t, srv.Server, arn)
			_, err = fresh.Protection(t.Context(), "new")
			require.NoError(t, err, "a failure is no proof and is not remembered")
			put(t, b, "new", []byte("data"), objstore.CreateOptions{})
			require.Equal(t, "data", string(get(t, b, objstore.Ref{Key: "key"}, objstore.Range{})))
		})
	}
}

// A part that was denied is sent again with the header; what becomes of that is
// the answer, unless it is denied too.
func TestDeniedPartIsSentAgainWithTheHeader(t *testing.T) {
	for code, kind := range map[string]objstore.Kind{"SlowDown": objstore.Throttled, "AccessDenied": objstore.Permission, "": 0} {
		t.Run(code, func(t *testing.T) {
			srv, _, b := emulated(t, "aws", Config{PartSize: minPartSize, OperationTimeout: 2 * time.Second,
				Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSES3}}}})
			srv.Inject(emulator.Fault{Verb: "UploadPart", Code: "AccessDenied", Count: 1})
			if code != "" {
				srv.Inject(emulator.Fault{Verb: "UploadPart", Code: code})
			}
			data := random(minPartSize + 1)
			_, err := tryPut(t.Context(), b, "key", data, objstore.CreateOptions{})
			if kind != 0 {
				require.ErrorIs(t, err, kind)
				return
			}
			require.NoError(t, err)
			require.Equal(t, data, get(t, b, objstore.Ref{Key: "key"}, objstore.Range{}))
		})
	}
}

// What the old material of a rotated key has encrypted stays readable.
func TestRotatedKMSKey(t *testing.T) {
	srv, s := emulatedWithKey(t, Config{Rules: []Rule{{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "alias/key"}}}})
	b, err := s.Open(t.Context(), "bucket")
	require.NoError(t, err)
	put(t, b, "old", []byte("old"), objstore.CreateOptions{})
	require.NoError(t, srv.RotateKMSKey(srv.arn))
	put(t, b, "new", []byte("new"), objstore.CreateOptions{})
	for _, key := range []string{"old", "new"} {
		require.Equal(t, key, string(get(t, b, objstore.Ref{Key: key}, objstore.Range{})))
		_, err := b.Copy(t.Context(), key+"-copy", objstore.Ref{Key: key}, objstore.CopyOptions{})
		require.NoError(t, err)
	}
}

// keyedEmulator is an emulator with a key of its KMS and a bucket.
type keyedEmulator struct {
	*emulator.Server
	arn string // of alias/key
}

func emulatedWithKey(t *testing.T, cfg Config) (keyedEmulator, *Store) {
	t.Helper()
	srv, _, _ := emulated(t, "aws", Config{})
	arn, err := srv.CreateKMSKey("alias/key")
	require.NoError(t, err)
	return keyedEmulator{srv, arn}, testStore(t, srv.Env(), cfg)
}
