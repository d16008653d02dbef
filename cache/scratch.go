package cache

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"coffer/objstore"
)

const (
	// frameBytes is the unit of sealing: large enough that nonce and tag
	// cost nothing, small enough that a small write does not.
	frameBytes = 64 << 10
	nonceBytes = 12
	tagBytes   = 16
	// slotBytes is the room of one sealed frame in the file. It is fixed, so
	// that a frame is rewritten in its place:
	//
	//	nonce 12 | ciphertext 65536 | tag 16
	slotBytes = nonceBytes + frameBytes + tagBytes
)

// scratch is a file without a name that holds frames sealed by AES-256-GCM.
// The key is random, belongs to this file and is nowhere but in memory: after
// the process has ended the bytes are noise, even where the disk keeps them;
// but see kept.go.
//
// Every sealing has its own nonce, the next number of a counter (2^64 of them
// cannot be used up), so that rewriting a frame never reuses one. The number
// of the latest sealing of each frame stays in memory too, and an older slot
// put back in its place is found out. The frame's index is authenticated, and
// a slot moved elsewhere is found out as well. A torn slot can only be the
// trace of a crash, and after a crash the key is gone.
//
// Not safe for concurrent use; the owner locks.
type scratch struct {
	f      *os.File
	key    []byte
	aead   cipher.AEAD
	seals  uint64           // nonces used
	latest map[int64]uint64 // by frame: the number of its latest sealing
	buf    []byte           // one slot; ciphertext only
}

// openScratch makes a file in dir that nobody else can open or find.
func openScratch(dir string) (*scratch, error) {
	f, err := unnamedFile(dir)
	if err != nil {
		return nil, scratchError("create", err)
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails: see crypto/rand
	aead, err := newGCM(key)
	if err != nil {
		_ = f.Close()
		return nil, scratchError("create", err)
	}
	return &scratch{f: f, key: key, aead: aead, latest: map[int64]uint64{}, buf: make([]byte, slotBytes)}, nil
}

// reopenScratch returns the scratch of a kept file, for reading.
func reopenScratch(f *os.File, key, latest []byte) (*scratch, error) {
	aead, err := newGCM(key)
	if err != nil {
		return nil, err
	}
	if len(latest)%16 != 0 {
		return nil, errors.New("its list of frames is cut short")
	}
	s := &scratch{f: f, aead: aead, latest: map[int64]uint64{}, buf: make([]byte, slotBytes)}
	for ; len(latest) > 0; latest = latest[16:] {
		s.latest[int64(binary.BigEndian.Uint64(latest))] = binary.BigEndian.Uint64(latest[8:])
	}
	return s, nil
}

// unnamedFile opens an O_TMPFILE; file systems without it (NFS, old overlay)
// get a file whose name is removed at once.
func unnamedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(stage)"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return namedThenRemoved(dir)
}

// namedThenRemoved is the fallback of unnamedFile.
func namedThenRemoved(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".coffer-stage-") // 0600, O_EXCL
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// has reports whether the frame was sealed.
func (s *scratch) has(frame int64) bool {
	_, ok := s.latest[frame]
	return ok
}

// seal writes a frame of frameBytes. After an error the slot may hold
// anything; the caller keeps the frame.
func (s *scratch) seal(frame int64, plain []byte) error {
	s.seals++
	nonce := s.buf[:nonceBytes]
	clear(nonce)
	binary.BigEndian.PutUint64(nonce[4:], s.seals)
	slot := s.aead.Seal(nonce, nonce, plain, frameAAD(frame))
	if _, err := s.f.WriteAt(slot, frame*slotBytes); err != nil {
		return scratchError("write", err)
	}
	s.latest[frame] = s.seals
	return nil
}

// open reads a frame that has been sealed into plain, frameBytes long.
func (s *scratch) open(frame int64, plain []byte) error {
	if _, err := s.f.ReadAt(s.buf, frame*slotBytes); err != nil {
		return scratchError("read", err)
	}
	nonce := s.buf[:nonceBytes]
	if binary.BigEndian.Uint64(nonce[4:]) != s.latest[frame] {
		return &objstore.Error{Op: "read scratch", Kind: objstore.Integrity, Err: fmt.Errorf("frame %d is not the one that was written last", frame)}
	}
	if _, err := s.aead.Open(plain[:0], nonce, s.buf[nonceBytes:], frameAAD(frame)); err != nil {
		return &objstore.Error{Op: "read scratch", Kind: objstore.Integrity, Err: fmt.Errorf("frame %d: %w", frame, err)}
	}
	return nil
}

// truncate forgets the frames from the first one on and frees their space.
func (s *scratch) truncate(first int64) error {
	any := false
	for frame := range s.latest {
		if frame >= first {
			delete(s.latest, frame)
			any = true
		}
	}
	if !any {
		return nil
	}
	if err := s.f.Truncate(first * slotBytes); err != nil {
		return scratchError("truncate", err)
	}
	return nil
}

func (s *scratch) close() error {
	clear(s.key)
	if err := s.f.Close(); err != nil {
		return scratchError("close", err)
	}
	return nil
}

// frameAAD returns what is authenticated with a frame beside its bytes.
func frameAAD(frame int64) []byte {
	return binary.BigEndian.AppendUint64([]byte("coffer stage 1 "), uint64(frame))
}

// scratchError classifies an error of the local disk.
func scratchError(op string, err error) error {
	kind := objstore.Unknown
	switch {
	case errors.Is(err, unix.ENOSPC):
		kind = objstore.NoSpace
	case errors.Is(err, unix.EDQUOT):
		kind = objstore.Quota
	case errors.Is(err, unix.EFBIG):
		kind = objstore.TooLarge
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		kind = objstore.Permission
	}
	return &objstore.Error{Op: op + " scratch", Kind: kind, Err: err}
}
