package cache

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"coffer/objstore"
)

// A kept stage is a scratch file that got a name, so that it outlives the
// process. Behind its frames stands what the process knew of it, sealed under
// a key that the caller brings and keeps elsewhere:
//
//	slots of scratch.go | nonce 12 | ciphertext n | tag 16 | key ID 8 | n 8 | magic 16
//
// The ciphertext is the JSON of a keptRecord: the key of the frames, the number
// of each frame's latest sealing, the extents, and a note of the caller. Key ID
// and magic are authenticated. The name comes last: a file that has one is
// complete.
const (
	keptMagic     = "coffer kept 1\n\x00\x00"
	keyIDBytes    = 8
	keptTailBytes = keyIDBytes + 8 + len(keptMagic)
	// maxKeptRecord bounds what is read into memory: 16 bytes a frame of
	// 64 KiB make this the record of a file of some 100 GiB of local bytes.
	maxKeptRecord = 64 << 20
)

// KeepKey is what the keys of kept stages are sealed under. It is never shown
// and never written.
type KeepKey struct {
	id   [keyIDBytes]byte
	aead cipher.AEAD
}

// NewKeepKey makes a key of 32 bytes, which stay the caller's.
func NewKeepKey(raw []byte) (*KeepKey, error) {
	if len(raw) != 32 {
		return nil, fmt.Errorf("cache: a key for kept data has %d bytes, not 32", len(raw))
	}
	aead, err := newGCM(raw)
	if err != nil {
		return nil, err
	}
	k := &KeepKey{aead: aead}
	sum := sha256.Sum256(append([]byte("coffer kept key id\x00"), raw...))
	copy(k.id[:], sum[:])
	return k, nil
}

// ID names the key without telling it: 16 hex digits.
func (k *KeepKey) ID() string { return hex.EncodeToString(k.id[:]) }

// newGCM returns AES-256-GCM under raw.
func newGCM(raw []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// keptRecord is what is known of a kept stage.
type keptRecord struct {
	FileKey []byte // of the frames
	// Latest holds pairs of 8 bytes, big-endian: a frame's index and the
	// number of its latest sealing.
	Latest  []byte
	Extents []Extent
	Note    json.RawMessage
}

// Keep gives the stage's scratch the name path, in the scratch directory or
// one beside it, with what it takes to open it again sealed under key. note is
// JSON. The stage must not be changed any more, only be closed. After an error
// there is no such file, and the stage is as it was.
func (s *Stage) Keep(path string, key *KeepKey, note []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return closedError("keep", "")
	}
	file, err := s.frames.flushed()
	if err != nil {
		return err
	}
	record, err := json.Marshal(keptRecord{FileKey: file.key, Latest: file.latestList(), Extents: s.ext.runs, Note: note})
	if err != nil {
		return fmt.Errorf("cache: keep: %w", err)
	}
	defer clear(record)
	if len(record) > maxKeptRecord {
		return &objstore.Error{Op: "keep", Kind: objstore.TooLarge, Err: fmt.Errorf("the record of the file takes %d bytes", len(record))}
	}
	return file.keep(path, key.seal(record))
}

// seal returns the end of a kept file.
func (k *KeepKey) seal(record []byte) []byte {
	tail := binary.BigEndian.AppendUint64(k.id[:keyIDBytes:keyIDBytes], uint64(len(record)))
	tail = append(tail, keptMagic...)
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce) // never fails: see crypto/rand
	return append(k.aead.Seal(nonce, nonce, record, tail), tail...)
}

// flushed returns the scratch file with every frame sealed.
func (x *frames) flushed() (*scratch, error) {
	for index, f := range x.byIndex {
		if err := x.clean(index, f); err != nil {
			return nil, err
		}
	}
	if x.file == nil { // a file without local bytes
		file, err := openScratch(x.c.cfg.ScratchDir)
		if err != nil {
			return nil, err
		}
		x.file = file
	}
	return x.file, nil
}

// latestList is the form of latest in a keptRecord.
func (s *scratch) latestList() []byte {
	list := make([]byte, 0, 16*len(s.latest))
	for frame, seal := range s.latest {
		list = binary.BigEndian.AppendUint64(list, uint64(frame))
		list = binary.BigEndian.AppendUint64(list, seal)
	}
	return list
}

// size is where the last slot ends.
func (s *scratch) size() int64 {
	end := int64(0)
	for frame := range s.latest {
		end = max(end, (frame+1)*slotBytes)
	}
	return end
}

// keep appends tail, brings all to the disk, and gives the file its name.
func (s *scratch) keep(path string, tail []byte) error {
	end := s.size()
	err := s.f.Truncate(end) // what a tail that was refused a name has left
	if err == nil {
		_, err = s.f.WriteAt(tail, end)
	}
	if err == nil {
		err = s.f.Sync()
	}
	if err == nil {
		err = s.name(path, end, tail)
	}
	if err == nil {
		if err = syncDir(filepath.Dir(path)); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return scratchError("keep", err)
	}
	return nil
}

// name gives the file its name; where only its bytes can be had, they are
// copied.
func (s *scratch) name(path string, end int64, tail []byte) error {
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", s.f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err == nil || errors.Is(err, unix.EEXIST) {
		return err
	}
	// A file that lost its name cannot get another, nor one on another device.
	out, err := os.CreateTemp(filepath.Dir(path), ".coffer-keep-")
	if err != nil {
		return err
	}
	defer out.Close()
	for frame := range s.latest { // and not what is between them
		if err == nil {
			_, err = s.f.ReadAt(s.buf, frame*slotBytes)
		}
		if err == nil {
			_, err = out.WriteAt(s.buf, frame*slotBytes)
		}
	}
	if err == nil {
		_, err = out.WriteAt(tail, end)
	}
	if err == nil {
		err = out.Sync()
	}
	if err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Kept is a kept stage, opened.
type Kept struct {
	// Note is what Keep was told.
	Note []byte
	file *scratch
	ext  extents
}

// KeptKeyID tells under which key a kept file is sealed, as [KeepKey.ID] does.
func KeptKeyID(path string) (string, error) {
	f, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	tail, _, err := readKeptTail(f)
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(tail[:keyIDBytes]), nil
}

// openRegular opens what may be another's trap: a fifo would wait for a writer.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = damaged(f, "it is no regular file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readKeptTail returns the last bytes of a kept file and where they begin.
func readKeptTail(f *os.File) (tail []byte, at int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	at = st.Size() - int64(keptTailBytes)
	tail = make([]byte, keptTailBytes)
	if at < 0 {
		return nil, 0, damaged(f, "it is too short")
	}
	if _, err := f.ReadAt(tail, at); err != nil {
		return nil, 0, err
	}
	if string(tail[keyIDBytes+8:]) != keptMagic {
		return nil, 0, damaged(f, "it does not end as one does")
	}
	return tail, at, nil
}

func damaged(f *os.File, why string) error {
	return &objstore.Error{Op: "open kept data", Key: f.Name(), Kind: objstore.Integrity, Err: errors.New(why)}
}

// OpenKept opens a kept file. With another key than that it is sealed under
// the error's kind is KeyUnavailable. The caller closes it.
func OpenKept(path string, key *KeepKey) (k *Kept, err error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	tail, at, err := readKeptTail(f)
	if err != nil {
		return nil, err
	}
	if string(tail[:keyIDBytes]) != string(key.id[:]) {
		return nil, &objstore.Error{Op: "open kept data", Key: path, Kind: objstore.KeyUnavailable,
			Err: fmt.Errorf("it is sealed under the key %x, not %s", tail[:keyIDBytes], key.ID())}
	}
	n := binary.BigEndian.Uint64(tail[keyIDBytes:])
	if n > maxKeptRecord || int64(n)+nonceBytes+tagBytes > at {
		return nil, damaged(f, "its record has no possible length")
	}
	sealed := make([]byte, nonceBytes+int64(n)+tagBytes)
	if _, err := f.ReadAt(sealed, at-int64(len(sealed))); err != nil {
		return nil, err
	}
	plain, err := key.aead.Open(nil, sealed[:nonceBytes], sealed[nonceBytes:], tail)
	if err != nil {
		return nil, damaged(f, "its record has been changed")
	}
	defer clear(plain)
	var r keptRecord
	if err := json.Unmarshal(plain, &r); err != nil {
		return nil, damaged(f, err.Error())
	}
	defer clear(r.FileKey)
	file, err := reopenScratch(f, r.FileKey, r.Latest)
	if err != nil {
		return nil, damaged(f, err.Error())
	}
	return &Kept{Note: slices.Clone(r.Note), file: file, ext: extents{runs: r.Extents}}, nil
}

// Size returns the length of the file in bytes.
func (k *Kept) Size() int64 { return k.ext.size() }

// NeedsBase reports whether some of the bytes are those of the file's base.
func (k *Kept) NeedsBase() bool { return k.ext.remote() }

// Close closes the file, unless a stage was made of it, which does so.
func (k *Kept) Close() error { return k.file.close() }

// StageOf makes a stage of kept bytes again, over the base that it lay over;
// nil will do unless [Kept.NeedsBase]. The stage owns k.
func (c *Cache) StageOf(k *Kept, base Base) *Stage {
	s := c.newStage(base)
	s.ext = k.ext
	s.frames.file = k.file
	return s
}
