package interop

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// What is written under a volume key, the libraries read with the raw key, which a
// recipient gets out of the file without Coffer; and the other way round.
func TestVolumeKeysInLibraries(t *testing.T) {
	recipient := rawRSA(2048, keyring.OAEPSHA256)
	v, err := keyring.NewVolume(t.Context(), keyring.Recipient{Key: recipient.key(t)})
	require.NoError(t, err)
	private, err := keyring.ParsePrivateKey([]byte(recipient.Private), nil)
	require.NoError(t, err)
	raw, err := rsa.DecryptOAEP(sha256.New(), nil, private, v.File().Recipients[0].Ciphertext, nil)
	require.NoError(t, err)
	exported := rawKey{Type: "raw-aes", Namespace: "coffer-volume", Name: v.File().ID, Key: hex.EncodeToString(raw), ItsOrder: true}
	own, err := v.VolumeKey(true)
	require.NoError(t, err)
	ring, err := keyring.New(keyring.Member{Key: own})
	require.NoError(t, err)
	e, err := ring.Wrap(t.Context(), newContext(t, map[string]string{"coffer-vol": "v"}))
	require.NoError(t, err)
	s, err := message.NewSealer(e.Key, e.Context, e.EDKs, message.Own.Frame)
	require.NoError(t, err)
	require.Equal(t, message.Own, s.Profile())
	plain := pattern(message.Own.Frame + 1)
	msg := seal(t, s, plain)
	withOracles(t, func(t *testing.T, o *oracle) {
		got, err := o.decrypt(t, msg, exported)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, got))
		theirs := o.encrypt(t, request{Suite: message.Committed.String(), Frame: 4096, Keyrings: []rawKey{exported}}, plain)
		got, _, err = open(theirs, own)
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, got))
	})
}
