package cse_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/message"
)

// testRing wraps data keys by AES-GCM, in a form of its own.
type testRing struct{ aead cipher.AEAD }

func newTestRing() *testRing {
	key := make([]byte, 32)
	rand.Read(key)
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	return &testRing{aead}
}

func (r *testRing) ID() string  { return "test" }
func (r *testRing) ByKMS() bool { return false }

func (r *testRing) Generate(_ context.Context, c message.Context) (cse.Material, error) {
	key := message.GenerateDataKey(message.Committed)
	edks := []message.EDK{{Provider: "test", Info: "key", Ciphertext: make([]byte, 12+32+16)}}
	c, err := message.PadContext(c, edks)
	if err != nil {
		return cse.Material{}, err
	}
	nonce := make([]byte, 12)
	rand.Read(nonce)
	edks[0].Ciphertext = r.aead.Seal(nonce, nonce, key.Bytes(), c.Append(nil))
	return cse.Material{Key: key, Context: c, EDKs: edks}, nil
}

func (r *testRing) Unwrap(_ context.Context, h *message.Header) (cse.Unwrapped, error) {
	for _, e := range h.EDKs {
		if e.Provider != "test" || len(e.Ciphertext) < 12 {
			continue
		}
		if key, err := r.aead.Open(nil, e.Ciphertext[:12], e.Ciphertext[12:], h.Context.Append(nil)); err == nil {
			return cse.Unwrapped{Key: message.NewDataKey(key)}, nil
		}
	}
	return cse.Unwrapped{}, objstore.KeyUnavailable
}
