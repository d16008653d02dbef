package emulator

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
)

// rootKey wraps the data keys of segments. There is one for the whole server
// (SSE-S3), one that the client brings (SSE-C), and one for every object that
// the key service keeps in wrapped form (SSE-KMS). Immutable.
type rootKey struct {
	aead cipher.AEAD
	// outer, when set, wraps a second data key: the segment is encrypted
	// twice (DSSE-KMS).
	outer *rootKey
}

// newRootKey takes 32 bytes.
func newRootKey(key []byte) (*rootKey, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &rootKey{aead: aead}, nil
}

// wrap seals a data key, bound to what id names.
func (r *rootKey) wrap(dataKey []byte, id string) []byte {
	nonce := make([]byte, r.aead.NonceSize())
	rand.Read(nonce)
	return r.aead.Seal(nonce, nonce, dataKey, []byte("coffer-emulator key v1 "+id))
}

func (r *rootKey) unwrap(wrapped []byte, id string) ([]byte, error) {
	n := r.aead.NonceSize()
	if len(wrapped) < n {
		return nil, fmt.Errorf("wrapped key of %s: %w", id, errTampered)
	}
	key, err := r.aead.Open(nil, wrapped[:n], wrapped[n:], []byte("coffer-emulator key v1 "+id))
	if err != nil {
		return nil, fmt.Errorf("wrapped key of %s: %w", id, errTampered)
	}
	return key, nil
}

// lock makes the data keys of a new segment, whose ID is set, and puts them
// into it in wrapped form.
func (r *rootKey) lock(s *segment) (*frames, error) {
	var keys [][]byte
	for at, root := range []*rootKey{r, r.outer} {
		if root == nil {
			continue
		}
		key := make([]byte, 32)
		rand.Read(key)
		keys = append(keys, key)
		if wrapped := root.wrap(key, s.ID); at == 0 {
			s.Key = wrapped
		} else {
			s.OuterKey = wrapped
		}
	}
	return newFrames(s.ID, keys...)
}

// unlock recovers the data keys of a segment.
func (r *rootKey) unlock(s segment) (*frames, error) {
	if r == nil {
		return nil, fmt.Errorf("emulator: segment %s is encrypted and there is no key", s.ID)
	}
	key, err := r.unwrap(s.Key, s.ID)
	if err != nil {
		return nil, err
	}
	keys := [][]byte{key}
	if len(s.OuterKey) > 0 {
		if r.outer == nil {
			return nil, fmt.Errorf("emulator: segment %s is encrypted twice and there is one key", s.ID)
		}
		if key, err = r.outer.unwrap(s.OuterKey, s.ID); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return newFrames(s.ID, keys...)
}
