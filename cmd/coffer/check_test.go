package main

import (
	"bytes"
	"context"
	"iter"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
	"coffer/objstore/s3store"
)

// uploadStore holds unfinished uploads; everything else is absent.
type uploadStore struct {
	objstore.Store
	uploads []objstore.Upload
	aborted []string
	refuse  string
}

func (s *uploadStore) Buckets(context.Context) ([]objstore.BucketInfo, error) {
	return []objstore.BucketInfo{{Name: "a"}, {Name: "b"}}, nil
}

func (s *uploadStore) ListUploads(_ context.Context, bucket, prefix string) iter.Seq2[objstore.Upload, error] {
	return func(yield func(objstore.Upload, error) bool) {
		for _, u := range s.uploads {
			if u.Bucket == bucket && len(u.Key) >= len(prefix) && u.Key[:len(prefix)] == prefix && !yield(u, nil) {
				return
			}
		}
	}
}

func (s *uploadStore) AbortUpload(_ context.Context, u objstore.Upload) error {
	if u.ID == s.refuse {
		return objstore.Permission
	}
	s.aborted = append(s.aborted, u.ID)
	return nil
}

func TestCheckUploads(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	uploads := []objstore.Upload{
		{Bucket: "a", Key: "x", ID: "old", Initiated: ago(25 * time.Hour)},
		{Bucket: "a", Key: "p/y", ID: "young", Initiated: ago(23 * time.Hour)},
		{Bucket: "b", Key: "p/z", ID: "older", Initiated: ago(100 * time.Hour)},
	}
	for _, c := range []struct {
		name    string
		plan    checkPlan
		listed  int
		aborted []string
	}{
		{"list only", checkPlan{olderThan: 24 * time.Hour}, 3, nil},
		{"all buckets", checkPlan{abortStale: true, olderThan: 24 * time.Hour}, 3, []string{"old", "older"}},
		{"one bucket", checkPlan{src: source{Bucket: "a"}, abortStale: true, olderThan: 24 * time.Hour}, 2, []string{"old"}},
		{"prefix", checkPlan{src: source{"a", "p"}, abortStale: true, olderThan: time.Hour}, 1, []string{"young"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &uploadStore{uploads: uploads}
			var report checkReport
			require.NoError(t, checkUploads(t.Context(), store, c.plan, now, &report))
			require.Len(t, report.Uploads, c.listed)
			require.Equal(t, c.aborted, store.aborted)
		})
	}
	store := &uploadStore{uploads: uploads, refuse: "old"}
	var report checkReport
	err := checkUploads(t.Context(), store, checkPlan{abortStale: true, olderThan: 24 * time.Hour}, now, &report)
	require.ErrorIs(t, err, objstore.Permission)
	require.Equal(t, []string{"older"}, store.aborted, "one refusal does not keep the others")
	require.False(t, report.Uploads[0].Aborted)
}

func TestCheckMachine(t *testing.T) {
	root := machine(t, map[string]string{"dev/fuse": "", "etc/fuse.conf": "# x\nuser_allow_other\n"}) + "/"
	checks := checkMachine(root, t.TempDir())
	byName := map[string]s3store.Check{}
	for _, c := range checks {
		byName[c.Name] = c
	}
	require.Equal(t, s3store.ResultYes, byName[checkDevice].Result)
	require.Equal(t, s3store.ResultYes, byName["--allow-other is permitted"].Result)
	require.Equal(t, s3store.ResultYes, byName[checkScratch].Result)
	require.NotEqual(t, s3store.ResultNo, byName[checkKernel].Result)

	checks = checkMachine(t.TempDir()+"/", "/no/such/dir")
	require.False(t, canMount(checks))
	require.True(t, canMount([]s3store.Check{{Name: checkDevice, Result: s3store.ResultYes}, {Name: "other", Result: s3store.ResultNo}}))
}

func TestKernelServes(t *testing.T) {
	for release, want := range map[string]s3store.Result{
		"4.18.0-553.el8": s3store.ResultYes, "4.17.9": s3store.ResultNo, "3.10.0-1160": s3store.ResultNo,
		"5.14.0-427.el9": s3store.ResultYes, "6.1": s3store.ResultYes, "weird": s3store.ResultUnknown,
	} {
		require.Equal(t, want, kernelServes(release), release)
	}
}

func TestReportPrints(t *testing.T) {
	r := checkReport{
		Store:   &storeReport{Endpoint: "https://x", Region: "r", Bucket: "b", Checks: []s3store.Check{{Name: "list buckets", Result: s3store.ResultNo, Detail: "denied"}}},
		Uploads: []uploadReport{{Bucket: "b", Key: "k", Aborted: true}},
	}
	var out bytes.Buffer
	r.print(&out)
	for _, want := range []string{"https://x", "encryption not proved", "list buckets", "denied", "s3://b/k", "removed"} {
		require.Contains(t, out.String(), want)
	}
}

func TestCheckUsage(t *testing.T) {
	code, _, errOut := runIn(t, "check", "--abort-stale")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "--uploads")
	code, _, errOut = runIn(t, "check", "--uploads", "--older-than", "-1h")
	require.Equal(t, exitUsage, code, errOut)
}

func TestDeniedByPolicy(t *testing.T) {
	denied := &objstore.Error{Kind: objstore.Permission, Err: codedError("AccessDenied")}
	require.True(t, deniedByPolicy(denied))
	require.False(t, deniedByPolicy(&objstore.Error{Kind: objstore.Permission, Err: codedError("InvalidAccessKeyId")}))
	require.False(t, deniedByPolicy(objstore.Permission))

	store := &accessStore{err: denied}
	require.NoError(t, checkAccess(t.Context(), store, source{}), "names resolve one by one")
	require.Error(t, checkAccess(t.Context(), store, source{Bucket: "b"}))
	store.err = &objstore.Error{Kind: objstore.Permission, Err: codedError("SignatureDoesNotMatch")}
	require.Error(t, checkAccess(t.Context(), store, source{}))
}

type codedError string

func (e codedError) Error() string     { return string(e) }
func (e codedError) ErrorCode() string { return string(e) }

type accessStore struct {
	objstore.Store
	err error
}

func (s *accessStore) Buckets(context.Context) ([]objstore.BucketInfo, error) { return nil, s.err }
func (s *accessStore) Open(context.Context, string) (objstore.Bucket, error)  { return nil, s.err }
