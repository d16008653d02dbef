package cache

import (
	"bufio"
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A file of notes is a log, beside the blocks under the same key:
//
//	magic 16 | salt 32 | frames: length 4 | ciphertext | tag 16
//
// It is sealed as the file of a block is: under a key of its own, a frame's nonce is
// its number, and the header is associated data. One process writes it and holds its
// lock as long; when nobody does, it is complete. What a crash left of a frame does not
// verify, and ends the file. A frame holds notes:
//
//	name 16 | length 1 | fact
const (
	notesPrefix      = "notes-"
	notesMagic       = "coffer notes 1\n\x00"
	notesHeaderBytes = len(notesMagic) + diskSaltBytes
	// notesFrameBytes bounds the plaintext of a frame.
	notesFrameBytes = 1 << 20
)

// noteName is a keyed hash of a note's name.
type noteName [16]byte

// notesFile is a file that this process writes.
type notesFile struct {
	name   string
	f      *os.File
	aead   cipher.AEAD
	header []byte
	frames uint64
	bytes  int64
}

// notesKey returns the AEAD of the file with this salt.
func (k *diskKey) notesKey(salt []byte) (cipher.AEAD, error) {
	raw, err := hkdf.Key(sha256.New, k.seal, salt, "coffer disk tier 1 notes", 32)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return newGCM(raw)
}

// createNotes makes an empty file of notes, which has its lock before it has its name.
func createNotes(dir *os.Root, key *diskKey) (_ *notesFile, err error) {
	n := &notesFile{header: append([]byte(notesMagic), make([]byte, diskSaltBytes)...), bytes: int64(notesHeaderBytes)}
	rand.Read(n.header[len(notesMagic):]) // never fails: see crypto/rand
	if n.aead, err = key.notesKey(n.header[len(notesMagic):]); err != nil {
		return nil, err
	}
	name := rand.Text()
	if n.f, err = dir.OpenFile(diskTempPrefix+name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = n.f.Close()
			_ = dir.Remove(diskTempPrefix + name)
		}
	}()
	if err := flock(n.f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	if _, err := n.f.Write(n.header); err != nil {
		return nil, err
	}
	n.name = notesPrefix + name
	return n, dir.Rename(diskTempPrefix+name, n.name)
}

// append writes one frame.
func (n *notesFile) append(notes []byte) error {
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(notes)))
	frame = n.aead.Seal(frame, notesNonce(n.frames), notes, n.header)
	n.frames++ // also when it is not written: no nonce comes twice
	n.bytes += int64(len(frame))
	_, err := n.f.Write(frame)
	return err
}

func notesNonce(frame uint64) []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint64(nonce[4:], frame)
	return nonce
}

// appendNote appends a note to those of a frame.
func appendNote(dst []byte, name noteName, fact []byte) []byte {
	return append(append(append(dst, name[:]...), byte(len(fact))), fact...)
}

// readNotes calls do for the notes of a file, in the order in which they were written,
// until one of its frames does not verify.
func readNotes(key *diskKey, file io.Reader, do func(name noteName, fact []byte)) error {
	in := bufio.NewReaderSize(file, 256<<10)
	header := make([]byte, notesHeaderBytes)
	if err := readExactly(in, header); err != nil {
		return err
	}
	if !bytes.HasPrefix(header, []byte(notesMagic)) {
		return errNotSealed
	}
	aead, err := key.notesKey(header[len(notesMagic):])
	if err != nil {
		return err
	}
	var frame []byte
	for number := uint64(0); ; number++ {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return errNotSealed
		}
		n := int(binary.BigEndian.Uint32(length[:]))
		if n > notesFrameBytes {
			return errNotSealed
		}
		if cap(frame) < n+diskTagBytes {
			frame = make([]byte, n+diskTagBytes)
		}
		frame = frame[:n+diskTagBytes]
		if err := readExactly(in, frame); err != nil {
			return err
		}
		notes, err := aead.Open(frame[:0], notesNonce(number), frame, header)
		if err != nil {
			return errNotSealed
		}
		for len(notes) > len(noteName{}) {
			name := noteName(notes)
			rest := notes[len(name)+1:]
			size := int(notes[len(name)])
			if size > len(rest) {
				return errNotSealed
			}
			do(name, rest[:size])
			notes = rest[size:]
		}
	}
}
