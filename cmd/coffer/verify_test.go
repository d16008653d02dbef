package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/fs"
	"coffer/objstore"
)

// heldStore is a store of one bucket, "b", whose objects answer a Get as a test says.
type heldStore struct {
	objstore.Store
	objects map[string]func(ctx context.Context) (string, error)
	listErr error // after all objects

	reading, most atomic.Int64
}

type heldBucket struct {
	objstore.Bucket
	s *heldStore
}

func (s *heldStore) Open(_ context.Context, name string) (objstore.Bucket, error) {
	if name != "b" {
		return nil, objstore.NotExist
	}
	return heldBucket{s: s}, nil
}

func (b heldBucket) Name() string { return "b" }

func (b heldBucket) List(ctx context.Context, q objstore.Query) iter.Seq2[objstore.Entry, error] {
	return func(yield func(objstore.Entry, error) bool) {
		n := 0
		for _, key := range slices.Sorted(maps.Keys(b.s.objects)) {
			if !strings.HasPrefix(key, q.Prefix) || q.Limit > 0 && n == q.Limit {
				continue
			}
			n++
			if !yield(objstore.Entry{Key: key}, nil) {
				return
			}
		}
		if b.s.listErr != nil {
			yield(objstore.Entry{}, b.s.listErr)
		}
	}
}

func (b heldBucket) Get(ctx context.Context, ref objstore.Ref, opts objstore.GetOptions) (io.ReadCloser, objstore.Object, error) {
	if ref.ETag != "" || opts.Range != (objstore.Range{}) {
		return nil, objstore.Object{}, errors.New("not all of the current version")
	}
	defer b.s.reading.Add(-1)
	if n := b.s.reading.Add(1); n > b.s.most.Load() {
		b.s.most.Store(n) // of a test that looks, one goroutine runs at a time
	}
	text, err := b.s.objects[ref.Key](ctx)
	if err != nil && text == "" {
		return nil, objstore.Object{}, err
	}
	if err == nil {
		err = io.EOF
	}
	return io.NopCloser(io.MultiReader(strings.NewReader(text), failing{err})), objstore.Object{}, nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

type get = func(context.Context) (string, error)

func whole(text string) get { return func(context.Context) (string, error) { return text, nil } }

func fails(kind objstore.Kind) get {
	return func(context.Context) (string, error) { return "", kind }
}

// sum returns what a verifier told of trees of s, in all.
func sum(ctx context.Context, s objstore.Store, jobs int, trees ...source) (verifyReport, error) {
	var r verifyReport
	err := newVerifier(s, jobs, func(news verifyReport) error { r.add(news); return nil }).run(ctx, trees)
	slices.SortFunc(r.Damaged, func(x, y damagedObject) int { return strings.Compare(x.Key, y.Key) })
	return r, err
}

func TestVerifierFinds(t *testing.T) {
	replaced := func(times int) get {
		return func(context.Context) (string, error) {
			if times--; times >= 0 {
				return "", objstore.Stale
			}
			return "new", nil
		}
	}
	for what, c := range map[string]struct {
		object get
		want   verifyReport
		fails  objstore.Kind
	}{
		"whole":                {whole("12345"), verifyReport{Objects: 1, Bytes: 5}, 0},
		"empty":                {whole(""), verifyReport{Objects: 1}, 0},
		"damaged":              {fails(objstore.Integrity), verifyReport{Objects: 1, Damaged: []damagedObject{{"b", "k", objstore.Integrity.Error()}}}, 0},
		"damaged at its end":   {func(context.Context) (string, error) { return "123", objstore.Integrity }, verifyReport{Objects: 1, Bytes: 3, Damaged: []damagedObject{{"b", "k", objstore.Integrity.Error()}}}, 0},
		"under another key":    {fails(objstore.KeyUnavailable), verifyReport{Objects: 1, Damaged: []damagedObject{{"b", "k", objstore.KeyUnavailable.Error()}}}, 0},
		"not to be read":       {fails(objstore.Permission), verifyReport{Objects: 1, Damaged: []damagedObject{{"b", "k", objstore.Permission.Error()}}}, 0},
		"archived":             {fails(objstore.Archived), verifyReport{Objects: 1, Damaged: []damagedObject{{"b", "k", objstore.Archived.Error()}}}, 0},
		"removed":              {fails(objstore.NotExist), verifyReport{Gone: 1}, 0},
		"replaced once":        {replaced(1), verifyReport{Objects: 1, Bytes: 3}, 0},
		"replaced all the day": {replaced(100), verifyReport{Gone: 1}, 0},
		"no store":             {fails(objstore.Unavailable), verifyReport{}, objstore.Unavailable},
	} {
		got, err := sum(t.Context(), &heldStore{objects: map[string]get{"k": c.object}}, 2, source{Bucket: "b"})
		require.Equal(t, c.fails, objstore.KindOf(err), "%s: %v", what, err)
		require.Equal(t, c.want, got, what)
	}
}

func TestVerifierReadsTrees(t *testing.T) {
	s := &heldStore{objects: map[string]get{}}
	for _, key := range []string{"dir", "dir-1", "dir/", "dir/a", "dir/sub/b", "dir0", "e"} {
		s.objects[key] = fails(objstore.Integrity)
	}
	for prefix, want := range map[string]string{
		"":          "dir dir-1 dir/a dir/sub/b dir0 e",
		"dir":       "dir dir/a dir/sub/b",
		"dir/a":     "dir/a",
		"dir/sub":   "dir/sub/b",
		"dir/sub/b": "dir/sub/b",
		"di":        "",
	} {
		got, err := sum(t.Context(), s, 3, source{Bucket: "b", Prefix: prefix})
		require.NoError(t, err)
		var keys []string
		for _, d := range got.Damaged {
			keys = append(keys, d.Key)
		}
		require.Equal(t, want, strings.Join(keys, " "), prefix)
	}
	_, err := sum(t.Context(), s, 1, source{Bucket: "other"})
	require.ErrorIs(t, err, objstore.NotExist)
	got, err := sum(t.Context(), s, 1, source{Bucket: "removed"}, source{Bucket: "b", Prefix: "e"})
	require.NoError(t, err)
	require.Len(t, got.Damaged, 1)
	s.listErr = objstore.Throttled
	_, err = sum(t.Context(), s, 1, source{Bucket: "b"})
	require.ErrorIs(t, err, objstore.Throttled, "a listing that ends early")
}

// So many objects are read at a time and no more, and how far it is is told meanwhile.
func TestVerifierIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldStore{objects: map[string]get{}}
		for i := range 100 {
			s.objects[string(rune('a'+i))] = func(context.Context) (string, error) {
				time.Sleep(time.Second)
				return "1", nil
			}
		}
		began, told, got := time.Now(), 0, verifyReport{}
		err := newVerifier(s, 4, func(news verifyReport) error {
			told++
			got.add(news)
			return nil
		}).run(t.Context(), []source{{Bucket: "b"}})
		require.NoError(t, err)
		require.Equal(t, verifyReport{Objects: 100, Bytes: 100}, got)
		require.EqualValues(t, 4, s.most.Load())
		require.Equal(t, 25*time.Second, time.Since(began))
		require.Greater(t, told, 100)
	})
}

// What is found waits for who is told: it is not kept here.
func TestVerifierEndsWhenNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &heldStore{objects: map[string]get{}}
		for i := range 100 {
			s.objects[string(rune('a'+i))] = fails(objstore.Integrity)
		}
		gone := errors.New("nobody listens")
		err := newVerifier(s, 4, func(verifyReport) error { return gone }).run(t.Context(), []source{{Bucket: "b"}})
		require.ErrorIs(t, err, gone)
	})
}

// verifying returns a mount that verifies a store whose objects never come.
func verifying() (*fakeMount, *heldStore) {
	m, s := newFakeMount(), &heldStore{objects: map[string]get{}}
	for _, key := range []string{"a", "b", "c"} {
		s.objects[key] = func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", &objstore.Error{Op: "get", Kind: objstore.Canceled, Err: ctx.Err()}
		}
	}
	m.verify = func(ctx context.Context, tell func(verifyReport) error) error {
		return newVerifier(s, 2, tell).run(ctx, []source{{Bucket: "b"}})
	}
	return m, s
}

// A client that goes away ends the work, and the next one has its turn.
func TestSessionVerifiesForOneClientAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := verifying()
		defer m.end()
		session := testSession(m, endNow)
		first, firstClient := net.Pipe()
		second, secondClient := net.Pipe()
		go io.Copy(io.Discard, firstClient)
		go io.Copy(io.Discard, secondClient)
		replies := make(chan controlReply, 2)
		serve := func(conn net.Conn) {
			replies <- session.handle(t.Context(), controlRequest{Op: "verify"}, &controlPeer{conn})
		}
		go serve(first)
		synctest.Wait()
		go serve(second)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.EqualValues(t, 2, s.reading.Load(), "of the first client alone")
		require.Empty(t, replies)
		require.NoError(t, firstClient.Close())
		require.Contains(t, (<-replies).Error, errClientGone.Error())
		synctest.Wait()
		require.EqualValues(t, 2, s.reading.Load(), "of the second")
		require.NoError(t, secondClient.Close())
		require.False(t, (<-replies).Done)
		require.Zero(t, s.reading.Load())
	})
}

// The end of a mount does not wait for who verifies it, not even for one that has
// stopped to read what it is told; and the others are told why.
func TestSessionEndEndsVerifying(t *testing.T) {
	for what, end := range map[string]func(*fakeMount, chan struct{}){
		"unmounted": func(m *fakeMount, _ chan struct{}) { m.end() },
		"stopped":   func(_ *fakeMount, stop chan struct{}) { close(stop) },
	} {
		synctest.Test(t, func(t *testing.T) {
			m, s := verifying()
			session, stop := testSession(m, endNow), make(chan struct{})
			deaf, _ := net.Pipe()
			waits, client := net.Pipe()
			go io.Copy(io.Discard, client)
			last := make(chan controlReply, 2)
			for _, conn := range []net.Conn{deaf, waits} {
				go func() {
					last <- session.handle(t.Context(), controlRequest{Op: "verify"}, &controlPeer{conn})
				}()
				synctest.Wait()
			}
			ended := make(chan time.Time, 1)
			go func() {
				_, err := session.run(stop, nil)
				require.NoError(t, err)
				require.Zero(t, s.reading.Load(), "it has ended before")
				ended <- time.Now()
			}()
			time.Sleep(time.Minute)
			began := time.Now()
			end(m, stop)
			require.LessOrEqual(t, (<-ended).Sub(began), 2*time.Second, what)
			for range 2 {
				require.Equal(t, errEnding.Error(), (<-last).Error, what)
			}
			require.NoError(t, client.Close())
		})
	}
}

// What a client gets are the news, and in the end the error with its exit code.
func TestSessionVerifyTells(t *testing.T) {
	m := newFakeMount()
	defer m.end()
	m.verify = func(_ context.Context, tell func(verifyReport) error) error {
		for _, key := range []string{"x", "y"} {
			if err := tell(verifyReport{Objects: 1, Damaged: []damagedObject{{"b", key, "bad"}}}); err != nil {
				return err
			}
		}
		return &objstore.Error{Op: "list", Kind: objstore.Unavailable}
	}
	server, conn := net.Pipe()
	defer conn.Close()
	peer := &controlPeer{server}
	session := testSession(m, endNow)
	go func() {
		var req controlRequest
		if json.NewDecoder(server).Decode(&req) == nil {
			_ = peer.say(session.handle(context.Background(), req, peer))
		}
	}()
	client := newControlClient(conn)
	var got verifyReport
	last, err := client.stream(t.Context(), controlRequest{Op: "verify"}, func(r controlReply) error { got.add(*r.Verify); return nil })
	require.NoError(t, err)
	require.EqualValues(t, 2, got.Objects)
	require.Equal(t, []damagedObject{{"b", "x", "bad"}, {"b", "y", "bad"}}, got.Damaged)
	require.False(t, last.Done)
	require.Equal(t, exitUnavailable, last.Code)
	require.Contains(t, last.Error, "list")
}

func TestTreeInMount(t *testing.T) {
	for _, c := range []struct{ root, name, want string }{
		{"s3://", "", "s3://"},
		{"s3://", "b", "s3://b"},
		{"s3://", "b/dir/file", "s3://b/dir/file"},
		{"s3://b", "", "s3://b"},
		{"s3://b", "dir", "s3://b/dir"},
		{"s3://b/top", "", "s3://b/top"},
		{"s3://b/top", "dir/file", "s3://b/top/dir/file"},
		{"s3://b/top", "../../x", "s3://b/top/x"},
	} {
		root, err := parseSource(c.root)
		require.NoError(t, err)
		require.Equal(t, c.want, treeIn(root, c.name).String(), "%+v", c)
	}
	files := []fs.DirtyFile{{Path: "b/dir"}, {Path: "b/dir/x"}, {Path: "b/dir1"}, {Path: "c/dir/x"}}
	require.Equal(t, []skippedObject{{"b", "dir", "not stored yet"}, {"b", "dir/x", "not stored yet"}}, unstored(files, []source{{"b", "dir"}}))
	require.Len(t, unstored(files, []source{{Bucket: "b"}, {Bucket: "c"}}), 4)
}

func TestMountAbove(t *testing.T) {
	all := []mountEntry{
		{Dir: "/", Device: "1"}, {Dir: "/mnt", Device: "2"}, {Dir: "/mnt/in", Device: "3"}, {Dir: "/mnt", Device: "4"}, {Dir: "/mnt/again", Device: "4"},
	}
	for _, c := range []struct{ device, abs, dir, inside string }{
		{"1", "/", "/", ""},
		{"1", "/mntx", "/", "mntx"},
		{"2", "/mnt/a/b", "/mnt", "a/b"},
		{"3", "/mnt/in", "/mnt/in", ""},
		{"4", "/mnt/in/x", "/mnt", "in/x"},
		{"4", "/mnt/again/x", "/mnt/again", "x"},
		{"5", "/mnt", "", ""},
		{"3", "/mnt/inside", "", ""},
	} {
		entry, inside := mountAbove(all, c.device, c.abs)
		require.Equal(t, c.dir, entry.Dir, "%+v", c)
		require.Equal(t, c.inside, inside, "%+v", c)
	}
	_, _, err := mountOf(t.TempDir())
	require.ErrorContains(t, err, "no mount of Coffer")
}

func TestVerifyUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--jobs 0 /x":            "less than 1",
		"s3://":                  "needs a bucket",
		"--cse-keyring k /x":     "a mount has its own settings",
		"s3://b/../c":            "cannot be a directory",
		"--endpoint-url http: x": "a mount has its own settings",
	} {
		var out, errs bytes.Buffer
		code := run(append([]string{"coffer", "verify"}, strings.Fields(args)...), nil, &out, &errs)
		require.Equal(t, exitUsage, code, args)
		require.Contains(t, errs.String(), want, args)
		require.Empty(t, out.String(), "no report of what was not begun")
	}
}

func TestVerifyPrints(t *testing.T) {
	var out bytes.Buffer
	verifyReport{Objects: 2, Bytes: 7}.print(&out)
	require.Equal(t, "2 objects with 7 bytes were read, 0 cannot be trusted\n", out.String())
	out.Reset()
	verifyReport{
		Objects: 2, Gone: 3, Damaged: []damagedObject{{"b", "k", "bad tag"}}, Skipped: []skippedObject{{"b", "new", "not stored yet"}},
	}.print(&out)
	for _, want := range []string{"s3://b/k", "bad tag", "s3://b/new", "1 are not stored yet, 3 were removed or replaced meanwhile"} {
		require.Contains(t, out.String(), want)
	}
}
