package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"coffer/objstore"
)

// Verdict is how a mode and a verb went on one server.
type Verdict string

// The verdicts of a [ModeRow].
const (
	// Works: the bytes, the metadata and the mode came out right.
	Works Verdict = "works"
	// Refused: what must not succeed did not, with the right kind.
	Refused Verdict = "refused as it must"
	// Cannot: the server does not offer this, and nothing was stored that is
	// less protected than what was asked for.
	Cannot Verdict = "server cannot"
	// Wrong: none of the others; the test has failed.
	Wrong Verdict = "WRONG"
	// Pointless: the verb means nothing in this mode.
	Pointless Verdict = "-"
)

// ModeRow is one cell of a server's table of modes and verbs.
type ModeRow struct {
	Mode    objstore.Mode
	Verb    string
	Verdict Verdict
	// Note says why, where the verdict is not simply that it works.
	Note string
}

// ModesConfig says on what to run the modes and verbs.
type ModesConfig struct {
	// Mode is the mode under test.
	Mode objstore.Mode
	// Open returns a store whose policy for new objects is Mode, and, where
	// given, only those of the keys (below) that are listed; no keys at all
	// for an empty list. It is called several times, for the same server.
	Open func(t *testing.T, policy objstore.Encryption, keys ...int) objstore.Store
	// Keys are what names the server's keys, two for SSE-C (the MD5s of the
	// keys 0 and 1 of Open); at most two of a KMS. The first is used first.
	Keys []string
	// Cannot tells that the server has no such mode: then each attempt to
	// write must be refused before a byte is stored.
	Cannot bool
	// Accept names verbs that the server is known not to do in this mode,
	// with the reason.
	Accept map[string]string
	// PartSize is that of the stores, 0 for 5 MiB.
	PartSize int64
}

// RunModes puts one mode of one server through all verbs and returns what the
// table of all has to show. A verdict of [Wrong] has failed the test as well.
func RunModes(t *testing.T, cfg ModesConfig) []ModeRow {
	t.Helper()
	if cfg.PartSize == 0 {
		cfg.PartSize = 5 << 20
	}
	m := &modes{ModesConfig: cfg}
	m.policy = m.encryption(0)
	m.store = cfg.Open(t, m.policy, m.all()...)
	if cfg.Cannot {
		m.refusesAll(t)
		return m.rows
	}
	s := &suite{Config: Config{Name: "modes", Mode: cfg.Mode}, store: m.store}
	m.b = s.bucket(t)
	for _, v := range []struct {
		name string
		run  func(t *testing.T) error
	}{
		{"mkdir sets the bucket default", m.bucketDefault},
		{"put", m.put}, {"multipart", m.multipart}, {"part copy from another key", m.partCopy},
		{"get", m.get}, {"range", m.rangeOf}, {"head", m.head}, {"copy", m.copy},
		{"rename", m.rename}, {"metadata change", m.metadata}, {"key rotation in place", m.rotate},
		{"wrong key", m.wrongKey}, {"without the key", m.withoutKey}, {"key for a plain object", m.keyForPlain},
	} {
		t.Run(strings.ReplaceAll(v.name, " ", "_"), func(t *testing.T) { m.verb(t, v.name, v.run) })
	}
	return m.rows
}

// modes is one run.
type modes struct {
	ModesConfig
	policy objstore.Encryption
	store  objstore.Store
	b      objstore.Bucket
	rows   []ModeRow
}

// note is an outcome that is no failure.
type note struct {
	verdict Verdict
	text    string
}

func (n note) Error() string { return n.text }

// notApplicable is a verb that means nothing in this mode.
func notApplicable(text string) error { return note{Pointless, text} }

// refused is what a verb returns that was refused as it had to be.
func refused(text string) error { return note{Refused, text} }

// verb runs one and writes its row.
func (m *modes) verb(t *testing.T, name string, run func(t *testing.T) error) {
	row := ModeRow{Mode: m.Mode, Verb: name, Verdict: Works}
	err := run(t)
	n, isNote := err.(note)
	reason, accepted := m.Accept[name]
	switch {
	case isNote:
		row.Verdict, row.Note = n.verdict, n.text
	case err != nil && accepted:
		row.Verdict, row.Note = Cannot, reason
		t.Logf("accepted: %v", err)
	case err != nil:
		row.Verdict, row.Note = Wrong, err.Error()
		t.Error(err)
	case accepted:
		row.Verdict, row.Note = Wrong, "works, though it is listed as what the server cannot: "+reason
		t.Error(row.Note)
	}
	m.rows = append(m.rows, row)
}

// all are the numbers of all customer keys.
func (m *modes) all() []int {
	if m.Mode != objstore.ModeSSEC {
		return nil
	}
	n := make([]int, len(m.Keys))
	for i := range n {
		n[i] = i
	}
	return n
}

// encryption is the mode with key number i.
func (m *modes) encryption(i int) objstore.Encryption {
	e := objstore.Encryption{Mode: m.Mode}
	if i >= len(m.Keys) {
		return e
	}
	switch m.Mode {
	case objstore.ModeSSEC:
		e.CustomerKeyMD5 = m.Keys[i]
	case objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
		e.KMSKeyID = m.Keys[i]
	}
	return e
}

// shows compares what the store says of an object with mode and key i.
func (m *modes) shows(what string, got objstore.Encryption, i int) error {
	want := m.encryption(i)
	if got.Mode != want.Mode || got.CustomerKeyMD5 != want.CustomerKeyMD5 || !strings.HasSuffix(got.KMSKeyID, want.KMSKeyID) {
		return fmt.Errorf("%s shows %+v, want %+v", what, got, want)
	}
	return nil
}

// same reads an object by HEAD and GET and compares all of it.
func (m *modes) same(ctx context.Context, b objstore.Bucket, key string, want []byte, i int) error {
	o, err := b.Head(ctx, objstore.Ref{Key: key})
	if err != nil {
		return err
	}
	if err := m.shows("HEAD of "+key, o.Encryption, i); err != nil {
		return err
	}
	if o.Size != int64(len(want)) {
		return fmt.Errorf("HEAD of %s shows %d bytes, want %d", key, o.Size, len(want))
	}
	got, o, err := fetch(ctx, b, objstore.Ref{Key: key}, objstore.GetOptions{})
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("GET of %s gives other bytes", key)
	}
	return m.shows("GET of "+key, o.Encryption, i)
}

// fetch reads an object or a range of it.
func fetch(ctx context.Context, b objstore.Bucket, ref objstore.Ref, opts objstore.GetOptions) ([]byte, objstore.Object, error) {
	r, o, err := b.Get(ctx, ref, opts)
	if err != nil {
		return nil, o, err
	}
	data, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return data, o, err
}

// write writes an object with key i and looks at it.
func (m *modes) write(t *testing.T, key string, data []byte, i int) error {
	opts := objstore.CreateOptions{Meta: map[string]string{"colour": "green"}}
	if i > 0 {
		opts.Encryption = m.encryption(i)
	}
	o, err := write(t.Context(), m.b, key, data, opts)
	if err != nil {
		return err
	}
	return m.shows("Commit of "+key, o.Encryption, i)
}

// bucketDefault looks at what a writer without any policy gets.
func (m *modes) bucketDefault(t *testing.T) error {
	if m.Mode == objstore.ModeSSEC {
		return notApplicable("no bucket default can name a customer key")
	}
	b, err := m.Open(t, objstore.Encryption{}).Open(t.Context(), m.b.Name())
	if err != nil {
		return err
	}
	o, err := write(t.Context(), b, "default", []byte("by default"), objstore.CreateOptions{})
	if err != nil {
		return err
	}
	if o, err = b.Head(t.Context(), o.Ref("")); err != nil {
		return err
	}
	return m.shows("an object without a wish", o.Encryption, 0)
}

func (m *modes) put(t *testing.T) error {
	for name, size := range map[string]int64{"put/empty": 0, "put/small": 1000} {
		data := random(1, size)
		if err := m.write(t, name, data, 0); err != nil {
			return err
		}
		if err := m.same(t.Context(), m.b, name, data, 0); err != nil {
			return err
		}
	}
	return nil
}

func (m *modes) multipart(t *testing.T) error {
	data := random(2, 2*m.PartSize+7)
	if err := m.write(t, "multipart", data, 0); err != nil {
		return err
	}
	return m.same(t.Context(), m.b, "multipart", data, 0)
}

// otherKey is the number of a second key, or of the only one.
func (m *modes) otherKey() int {
	if len(m.Keys) > 1 {
		return 1
	}
	return 0
}

func (m *modes) partCopy(t *testing.T) error {
	data := random(3, 2*m.PartSize+7)
	if err := m.write(t, "part/source", data, m.otherKey()); err != nil {
		return err
	}
	src, err := m.b.Head(t.Context(), objstore.Ref{Key: "part/source"})
	if err != nil {
		return err
	}
	w, err := m.b.Create(t.Context(), "part/copy", objstore.CreateOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = w.Abort() }() // does nothing after a Commit
	rc, ok := w.(objstore.RangeCopier)
	if !ok {
		return notApplicable("the writer copies no ranges")
	}
	n := m.PartSize + 5
	if err := rc.CopyRange(t.Context(), src.Ref(m.b.Name()), 1, n); err != nil {
		return err
	}
	if _, err := w.Write([]byte("tail")); err != nil {
		return err
	}
	if _, err := w.Commit(t.Context()); err != nil {
		return err
	}
	return m.same(t.Context(), m.b, "part/copy", append(bytes.Clone(data[1:1+n]), "tail"...), 0)
}

func (m *modes) get(t *testing.T) error {
	data := random(4, 100_000)
	if err := m.write(t, "get", data, m.otherKey()); err != nil {
		return err
	}
	// By a store that has not written it, and knows nothing of its key.
	b, err := m.Open(t, m.policy, m.all()...).Open(t.Context(), m.b.Name())
	if err != nil {
		return err
	}
	return m.same(t.Context(), b, "get", data, m.otherKey())
}

func (m *modes) rangeOf(t *testing.T) error {
	data := random(5, 2*m.PartSize)
	if err := m.write(t, "range", data, 0); err != nil {
		return err
	}
	for _, r := range []objstore.Range{{Offset: 0, Length: 1}, {Offset: 70_000, Length: 70_000}, {Offset: m.PartSize - 1, Length: 2}, {Offset: 2*m.PartSize - 3}} {
		end := int64(len(data))
		if r.Length > 0 {
			end = r.Offset + r.Length
		}
		got, o, err := fetch(t.Context(), m.b, objstore.Ref{Key: "range"}, objstore.GetOptions{Range: r})
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data[r.Offset:end]) {
			return fmt.Errorf("range %+v gives other bytes", r)
		}
		if err := m.shows("a range", o.Encryption, 0); err != nil {
			return err
		}
	}
	return nil
}

func (m *modes) head(t *testing.T) error {
	if err := m.write(t, "head", []byte("head"), m.otherKey()); err != nil {
		return err
	}
	b, err := m.Open(t, m.policy, m.all()...).Open(t.Context(), m.b.Name())
	if err != nil {
		return err
	}
	o, err := b.Head(t.Context(), objstore.Ref{Key: "head"})
	if err != nil {
		return err
	}
	if o.Meta["colour"] != "green" {
		return fmt.Errorf("metadata %v", o.Meta)
	}
	return m.shows("HEAD", o.Encryption, m.otherKey())
}

// copy copies to the policy's key from another one, and with no policy keeps
// the source's.
func (m *modes) copy(t *testing.T) error {
	data := random(6, 3000)
	if err := m.write(t, "copy/source", data, m.otherKey()); err != nil {
		return err
	}
	if _, err := m.b.Copy(t.Context(), "copy/policy", objstore.Ref{Key: "copy/source"}, objstore.CopyOptions{}); err != nil {
		return err
	}
	if err := m.same(t.Context(), m.b, "copy/policy", data, 0); err != nil {
		return err
	}
	b, err := m.Open(t, objstore.Encryption{}, m.all()...).Open(t.Context(), m.b.Name())
	if err != nil {
		return err
	}
	if _, err := b.Copy(t.Context(), "copy/kept", objstore.Ref{Key: "copy/source"}, objstore.CopyOptions{}); err != nil {
		return err
	}
	return m.same(t.Context(), b, "copy/kept", data, m.otherKey())
}

func (m *modes) rename(t *testing.T) error {
	data := random(7, 3000)
	if err := m.write(t, "rename/old", data, 0); err != nil {
		return err
	}
	if _, err := m.b.Copy(t.Context(), "rename/new", objstore.Ref{Key: "rename/old"}, objstore.CopyOptions{}); err != nil {
		return err
	}
	if err := m.b.Delete(t.Context(), objstore.Ref{Key: "rename/old"})[0]; err != nil {
		return err
	}
	if _, err := m.b.Head(t.Context(), objstore.Ref{Key: "rename/old"}); objstore.KindOf(err) != objstore.NotExist {
		return fmt.Errorf("HEAD of the old name: %v", err)
	}
	return m.same(t.Context(), m.b, "rename/new", data, 0)
}

func (m *modes) metadata(t *testing.T) error {
	data := random(8, 3000)
	if err := m.write(t, "meta", data, 0); err != nil {
		return err
	}
	o, err := m.b.Copy(t.Context(), "meta", objstore.Ref{Key: "meta"}, objstore.CopyOptions{Meta: map[string]string{"colour": "red"}})
	if err != nil {
		return err
	}
	if o, err = m.b.Head(t.Context(), o.Ref("")); err != nil {
		return err
	}
	if o.Meta["colour"] != "red" {
		return fmt.Errorf("metadata %v", o.Meta)
	}
	return m.same(t.Context(), m.b, "meta", data, 0)
}

func (m *modes) rotate(t *testing.T) error {
	if len(m.Keys) < 2 {
		return notApplicable("there is no second key")
	}
	data := random(9, 3000)
	if err := m.write(t, "rotate", data, 0); err != nil {
		return err
	}
	o, err := m.b.Copy(t.Context(), "rotate", objstore.Ref{Key: "rotate"}, objstore.CopyOptions{Encryption: m.encryption(1)})
	if err != nil {
		return err
	}
	if err := m.shows("Copy", o.Encryption, 1); err != nil {
		return err
	}
	if o.Meta["colour"] != "green" {
		return fmt.Errorf("metadata %v", o.Meta)
	}
	return m.same(t.Context(), m.b, "rotate", data, 1)
}

// unreadable checks that an object of key 0 is refused with KeyUnavailable by a
// store that has only the given keys.
func (m *modes) unreadable(t *testing.T, key string, policy objstore.Encryption, keys ...int) error {
	if err := m.write(t, key, []byte("secret"), 0); err != nil {
		return err
	}
	b, err := m.Open(t, policy, keys...).Open(t.Context(), m.b.Name())
	if err != nil {
		return err
	}
	if _, err = b.Head(t.Context(), objstore.Ref{Key: key}); objstore.KindOf(err) != objstore.KeyUnavailable {
		return fmt.Errorf("HEAD: %v", err)
	}
	data, _, err := fetch(t.Context(), b, objstore.Ref{Key: key}, objstore.GetOptions{})
	if objstore.KindOf(err) != objstore.KeyUnavailable {
		return fmt.Errorf("GET gives %d bytes and %v", len(data), err)
	}
	if _, err = b.Copy(t.Context(), key+"/copy", objstore.Ref{Key: key}, objstore.CopyOptions{}); objstore.KindOf(err) != objstore.KeyUnavailable {
		return fmt.Errorf("copy: %v", err)
	}
	return refused(string(objstore.KeyUnavailable.Error()))
}

func (m *modes) wrongKey(t *testing.T) error {
	switch m.Mode {
	case objstore.ModeSSEC:
		return m.unreadable(t, "wrong", m.encryption(1), 1)
	case objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
		e := m.encryption(0)
		e.KMSKeyID = "no-such-key"
		_, err := write(t.Context(), m.b, "wrong", []byte("x"), objstore.CreateOptions{Encryption: e})
		if objstore.KindOf(err) != objstore.KeyUnavailable {
			return fmt.Errorf("an unknown key: %v", err)
		}
		return refused(string(objstore.KeyUnavailable.Error()))
	}
	return notApplicable("no key is chosen")
}

func (m *modes) withoutKey(t *testing.T) error {
	if m.Mode != objstore.ModeSSEC {
		return notApplicable("readers need no key")
	}
	return m.unreadable(t, "without", objstore.Encryption{})
}

func (m *modes) keyForPlain(t *testing.T) error {
	if m.Mode != objstore.ModeSSEC {
		return notApplicable("readers show no key")
	}
	data := random(10, 3000)
	other, err := m.Open(t, objstore.Encryption{Mode: objstore.ModeNone}).Open(t.Context(), m.b.Name())
	if err != nil {
		return err
	}
	if _, err := write(t.Context(), other, "plain", data, objstore.CreateOptions{}); err != nil {
		return err
	}
	got, o, err := fetch(t.Context(), m.b, objstore.Ref{Key: "plain"}, objstore.GetOptions{})
	if err != nil {
		return err
	}
	if !bytes.Equal(got, data) || o.Encryption.Mode == objstore.ModeSSEC {
		return fmt.Errorf("GET gives %d bytes of %d, %+v", len(got), len(data), o.Encryption)
	}
	if _, err := m.b.Head(t.Context(), objstore.Ref{Key: "plain"}); err != nil {
		return err
	}
	if _, err := m.b.Copy(t.Context(), "plain", objstore.Ref{Key: "plain"}, objstore.CopyOptions{}); err != nil {
		return err
	}
	return m.same(t.Context(), m.b, "plain", data, 0)
}

// refusesAll checks that a server without the mode gets no byte.
func (m *modes) refusesAll(t *testing.T) {
	s := &suite{Config: Config{Name: "modes", Mode: m.Mode}, store: m.store}
	refusal := func(what string, err error) error {
		switch objstore.KindOf(err) {
		case objstore.Unencrypted, objstore.KeyUnavailable, objstore.Permission:
			return note{Cannot, what + ": " + objstore.KindOf(err).Error()}
		}
		return fmt.Errorf("%s: %v", what, err)
	}
	m.verb(t, "mkdir sets the bucket default", func(t *testing.T) error {
		name := s.bucketName(t)
		_, err := m.store.CreateBucket(t.Context(), name, objstore.CreateBucketOptions{})
		if _, oerr := m.store.Open(t.Context(), name); objstore.KindOf(oerr) != objstore.NotExist {
			return fmt.Errorf("the bucket that cannot encrypt stayed: %v", oerr)
		}
		return refusal("create bucket", err)
	})
	plain := &suite{Config: Config{Name: "modes", Mode: objstore.ModeNone}, store: m.Open(t, objstore.Encryption{Mode: objstore.ModeNone})}
	pb := plain.bucket(t)
	if _, err := write(t.Context(), pb, "there", []byte("in plaintext"), objstore.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := m.store.Open(t.Context(), pb.Name())
	if err != nil {
		t.Fatal(err)
	}
	m.verb(t, "put", func(t *testing.T) error {
		_, err := b.Create(t.Context(), "put", objstore.CreateOptions{})
		return refusal("create", err)
	})
	m.verb(t, "copy", func(t *testing.T) error {
		_, err := b.Copy(t.Context(), "copy", objstore.Ref{Key: "there"}, objstore.CopyOptions{})
		return refusal("copy", err)
	})
	m.verb(t, "metadata change", func(t *testing.T) error {
		_, err := b.Copy(t.Context(), "there", objstore.Ref{Key: "there"}, objstore.CopyOptions{Meta: map[string]string{"a": "b"}})
		return refusal("copy onto itself", err)
	})
	m.verb(t, "get", func(t *testing.T) error {
		got, o, err := fetch(t.Context(), b, objstore.Ref{Key: "there"}, objstore.GetOptions{})
		if err == nil && (string(got) != "in plaintext" || o.Encryption.Encrypted()) {
			err = fmt.Errorf("GET gives %q, %+v", got, o.Encryption)
		}
		return err
	})
	if left := list(t, b, objstore.Query{}); len(left) != 1 {
		t.Errorf("objects were left: %q", keys(left))
	}
}
