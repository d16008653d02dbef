package keyring_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// A volume key for a KMS's key is opened by one request, whatever the key is called;
// messages ask for nothing then. What the policy wants to see is in the request.
func TestVolumeKeyByKMS(t *testing.T) {
	s, c := keyService(t)
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	v, err := keyring.NewVolume(t.Context(),
		keyring.Recipient{Key: kmsKey(t, c, "alias/mine"), Context: contextOf(t, map[string]string{"project": "0815"})})
	require.NoError(t, err)
	f := v.File()
	require.Equal(t, "aws-kms "+arn, f.Recipients[0].Key, "what an alias stands for can change")
	_, err = v.Add(t.Context(), keyring.Recipient{Key: kmsKey(t, c, arn)})
	require.ErrorContains(t, err, "is a recipient already")
	dir := t.TempDir()
	require.NoError(t, keyring.CreateVolume(filepath.Join(dir, "volume.key"), f))
	load := func(id string) (*keyring.Ring, error) {
		text := "- {type: volume-key, file: volume.key, keys: [{type: aws-kms, key_id: '" + id + "'}]}\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(text), 0o600))
		r, context, err := keyring.Load(t.Context(), filepath.Join(dir, "ring"), func(string) (keyring.KMSClient, error) { return c, nil })
		require.Zero(t, context.Len())
		return r, err
	}
	for _, id := range []string{arn, "alias/mine"} {
		s.ResetRequests()
		r, err := load(id)
		require.NoError(t, err)
		require.Len(t, s.Requests(), 1)
		msg := encrypt(t, r, message.Context{}, "secret")
		got, by, err := decrypt(r, msg, message.Context{})
		require.NoError(t, err)
		require.Equal(t, "secret", string(got))
		require.True(t, by.Authenticates())
		require.False(t, keyring.ByKMS(by))
		require.Len(t, s.Requests(), 1)
	}
	require.NoError(t, s.DenyKMS(arn, true))
	_, err = load(arn)
	require.ErrorContains(t, err, "AccessDeniedException")
	require.True(t, errors.Is(err, objstore.KeyUnavailable), "%v", err)
	require.NoError(t, s.DenyKMS(arn, false))
	// The context is bound.
	f.Recipients[0].Context["project"] = "0816"
	_, err = f.Open(t.Context(), kmsKey(t, c, arn))
	require.ErrorContains(t, err, "InvalidCiphertextException")
}
