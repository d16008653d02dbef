package cse

import (
	"encoding/binary"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// Sizes keeps what objects were proved to be for other stores like this one, later or in
// other processes. Nothing is read by what it says: who opens an object proves its size
// again. It may forget. Safe for concurrent use.
type Sizes interface {
	// Get returns what was put under a name last.
	Get(name []byte) (fact []byte, ok bool)
	// Put keeps a fact of at most 255 bytes. It does not wait, and keeps no reference.
	Put(name, fact []byte)
}

// noteProved remembers what a version is for sure: it was opened, or written here.
func (b *bucket) noteProved(o objstore.Object, f form) {
	v := b.version(o)
	b.s.forms.Add(v, f)
	if v.VersionID != "" { // whoever asks for the current one does not name it
		v.VersionID = ""
		b.s.forms.Add(v, f)
	}
	if fact, ok := f.fact(); ok && b.s.cfg.Sizes != nil {
		b.s.cfg.Sizes.Put(b.factName(o.Entry), fact)
	}
}

// proved returns what was found out of a version before, here or elsewhere.
func (b *bucket) proved(o objstore.Object) (form, bool) {
	if o.ETag == "" {
		return form{}, false // it cannot be told from others
	}
	if f, ok := b.s.forms.Get(b.version(o)); ok {
		return f, true
	}
	if b.s.cfg.Sizes == nil {
		return form{}, false
	}
	fact, ok := b.s.cfg.Sizes.Get(b.factName(o.Entry))
	if !ok {
		return form{}, false
	}
	f, ok := formOfFact(fact)
	if ok {
		_, err := f.size(o.StoredSize)
		ok = err == nil
	}
	return f, ok
}

// listedSize returns the size of an object, as far as a listing can tell it.
func (b *bucket) listedSize(e objstore.Entry) (size int64, known bool) {
	f, ok := b.proved(objstore.Object{Entry: e})
	if !ok {
		f.profile, ok = b.s.declared(b.Name(), e.Key)
	}
	if !ok {
		return 0, false
	}
	size, err := f.size(e.StoredSize)
	return size, err == nil
}

// factName names an object version: store and keyring, bucket, key, ETag and length.
func (b *bucket) factName(e objstore.Entry) []byte {
	var name []byte
	for _, field := range []string{b.s.id, b.Name(), e.Key, string(e.ETag)} {
		name = append(binary.BigEndian.AppendUint32(name, uint32(len(field))), field...)
	}
	return binary.BigEndian.AppendUint64(name, uint64(e.StoredSize))
}

// A fact is the form of a message of frames, or of a plain object, without what became of
// a signature:
//
//	plain 1 | by KMS 1 | suite 2 | H 4 | F 4 | S 4
const factBytes = 1 + 1 + 2 + 4 + 4 + 4

// fact returns f as Sizes keep it, where it can be told from the fact again.
func (f form) fact() (p []byte, ok bool) {
	flag := func(set bool) byte {
		if set {
			return 1
		}
		return 0
	}
	p = make([]byte, 0, factBytes)
	p = append(p, flag(f.plain), flag(f.mode == objstore.ModeCSEKMS))
	p = binary.BigEndian.AppendUint16(p, uint16(f.suite))
	for _, n := range []int64{f.profile.Header, f.profile.Frame, f.profile.Footer} {
		p = binary.BigEndian.AppendUint32(p, uint32(n))
	}
	back, ok := formOfFact(p)
	f.verified = ""
	return p, ok && back == f
}

// formOfFact is the inverse of fact. What is no fact is not ok.
func formOfFact(p []byte) (f form, ok bool) {
	if len(p) != factBytes || p[0] > 1 || p[1] > 1 {
		return form{}, false
	}
	if p[0] == 1 {
		return form{plain: true}, [factBytes]byte(p) == [factBytes]byte{1}
	}
	n := func(i int) int64 { return int64(binary.BigEndian.Uint32(p[4+4*i:])) }
	f = form{mode: modeOf(p[1] == 1), suite: message.Suite(binary.BigEndian.Uint16(p[2:])),
		profile: message.Profile{Header: n(0), Frame: n(1), Footer: n(2)}}
	valid, err := message.ParseProfile(f.profile.String())
	return f, err == nil && valid == f.profile && f.suite.Known()
}
