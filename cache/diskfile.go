package cache

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"coffer/objstore"
)

// A file of the disk tier holds one block:
//
//	magic 16 | salt 32 | length 8 | CRC 1 | sum 8 | frames: ciphertext of up to 64 KiB, tag 16
//
// The sum is that of the block's bytes by the checksum of its object, which CRC
// numbers from 1 in the order of objstore.CRCs; both are 0 where it has none.
// Each file has an AES-256-GCM key of its own, made by HKDF-SHA256 from the
// tier's key and the file's random salt. It seals this one file and no other,
// so that the nonce of a frame is simply its number: no pair of key and nonce
// comes twice, however many mounts write under one key for however long. The
// header and the identity of the block, its length included, are associated
// data of every frame. A frame is small enough to stay in the processor's
// cache between the read and its opening.
const (
	diskMagic       = "coffer block 1\n\x00"
	diskSaltBytes   = 32
	diskHeaderBytes = len(diskMagic) + diskSaltBytes + 8 + 1 + 8
	diskFrameBytes  = 64 << 10
	diskTagBytes    = 16
	// diskScratchBytes take a frame and one byte more, which shows a file
	// that goes on after its last frame.
	diskScratchBytes = diskFrameBytes + diskTagBytes + 1
)

// errNotSealed tells that a file is not the block that it was opened for.
var errNotSealed = errors.New("the file does not verify")

// diskName is the name of a block's file: a keyed hash of its identity, which
// tells nothing of bucket and key.
type diskName [16]byte

// path returns where the file is, below the tier's directory.
func (n diskName) path() string {
	s := hex.EncodeToString(n[:])
	return s[:2] + "/" + s
}

// parseDiskName is the inverse of the second part of path.
func parseDiskName(s string) (n diskName, ok bool) {
	if len(s) != 2*len(n) {
		return n, false
	}
	_, err := hex.Decode(n[:], []byte(s))
	return n, err == nil
}

// diskKey is what a tier derives from its 32 bytes.
type diskKey struct {
	seal, name, note []byte
	id               string // tells the key from others, and nothing about it
}

func newDiskKey(raw []byte) (*diskKey, error) {
	if len(raw) != 32 {
		return nil, fmt.Errorf("a key of %d bytes, not 32", len(raw))
	}
	derive := func(use string) (out []byte, err error) {
		return hkdf.Key(sha256.New, raw, nil, "coffer disk tier 1 "+use, 32)
	}
	seal, err1 := derive("seal")
	name, err2 := derive("name")
	note, err3 := derive("note")
	id, err4 := derive("id")
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	return &diskKey{seal: seal, name: name, note: note, id: hex.EncodeToString(id[:8])}, nil
}

// nameOf returns the file name of a block.
func (k *diskKey) nameOf(identity []byte) (n diskName) {
	h := hmac.New(sha256.New, k.name)
	h.Write(identity)
	copy(n[:], h.Sum(nil))
	return n
}

// fileKey returns the AEAD of the file with this salt.
func (k *diskKey) fileKey(salt []byte) (cipher.AEAD, error) {
	raw, err := hkdf.Key(sha256.New, k.seal, salt, "coffer disk tier 1 file", 32)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return newGCM(raw)
}

// diskFileBytes is the size of the file of a block of n bytes.
func diskFileBytes(n int) int64 {
	frames := (n + diskFrameBytes - 1) / diskFrameBytes
	return int64(diskHeaderBytes + n + frames*diskTagBytes)
}

// blockSum is the sum of a block's bytes by crc, whose zero value is none.
type blockSum struct {
	crc objstore.CRC
	sum uint64
}

// sealBlock appends the file of a block to dst.
func (k *diskKey) sealBlock(dst, identity, data []byte, sum blockSum) ([]byte, error) {
	start := len(dst)
	dst = append(dst, diskMagic...)
	var salt [diskSaltBytes]byte
	rand.Read(salt[:]) // never fails: see crypto/rand
	dst = append(dst, salt[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(len(data)))
	dst = append(dst, byte(slices.Index(objstore.CRCs[:], sum.crc)+1))
	dst = binary.BigEndian.AppendUint64(dst, sum.sum)
	aead, err := k.fileKey(salt[:])
	if err != nil {
		return nil, err
	}
	about := append(bytes.Clone(dst[start:]), identity...)
	var nonce [12]byte
	for frame := uint64(0); len(data) > 0; frame++ {
		n := min(len(data), diskFrameBytes)
		binary.BigEndian.PutUint64(nonce[4:], frame)
		dst = aead.Seal(dst, nonce[:], data[:n], about)
		data = data[n:]
	}
	return dst, nil
}

// openBlock fills data from the file of a block, and returns what is known of its
// sum. After an error data holds anything. scratch has diskScratchBytes.
func (k *diskKey) openBlock(data, identity []byte, file io.Reader, scratch []byte) (sum blockSum, err error) {
	header := make([]byte, diskHeaderBytes, diskHeaderBytes+len(identity))
	if err := readExactly(file, header); err != nil {
		return sum, err
	}
	salt := header[len(diskMagic) : len(diskMagic)+diskSaltBytes]
	rest := header[len(diskMagic)+diskSaltBytes:]
	length, crc := binary.BigEndian.Uint64(rest), int(rest[8])
	if string(header[:len(diskMagic)]) != diskMagic || length != uint64(len(data)) || length == 0 || crc > len(objstore.CRCs) {
		return sum, errNotSealed
	}
	if crc > 0 {
		sum = blockSum{objstore.CRCs[crc-1], binary.BigEndian.Uint64(rest[9:])}
	}
	aead, err := k.fileKey(salt)
	if err != nil {
		return sum, err
	}
	about := append(header, identity...)
	var nonce [12]byte
	for frame := uint64(0); len(data) > 0; frame++ {
		n := min(len(data), diskFrameBytes)
		sealed := scratch[:n+diskTagBytes]
		if n < len(data) {
			err = readExactly(file, sealed)
		} else {
			err = readToEnd(file, scratch[:len(sealed)+1])
		}
		if err != nil {
			return sum, err
		}
		binary.BigEndian.PutUint64(nonce[4:], frame)
		if _, err := aead.Open(data[:0:n], nonce[:], sealed, about); err != nil {
			return sum, errNotSealed
		}
		data = data[n:]
	}
	return sum, nil
}

// readExactly fills p; a file that is too short does not verify.
func readExactly(file io.Reader, p []byte) error {
	_, err := io.ReadFull(file, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errNotSealed
	}
	return err
}

// readToEnd wants the file to end one byte before p does.
func readToEnd(file io.Reader, p []byte) error {
	n, err := io.ReadFull(file, p)
	if err == io.ErrUnexpectedEOF && n == len(p)-1 {
		return nil
	}
	if err == nil || err == io.EOF || err == io.ErrUnexpectedEOF {
		return errNotSealed
	}
	return err
}
