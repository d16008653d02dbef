package cse_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"path/filepath"
	"testing"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/s3store"
)

// labAES is a random key of this name.
func labAES(t *testing.T, name string) keyring.Key {
	t.Helper()
	k, err := keyring.NewRawAES("lab", name, random(32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func labRSA(t *testing.T) keyring.Key {
	t.Helper()
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.NewRawRSA("lab", "pair", keyring.OAEPSHA256, nil, pair)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keysTogether is the keyring of these keys.
func keysTogether(t *testing.T, keys ...keyring.Key) *keyring.Ring {
	t.Helper()
	var members []keyring.Member
	for _, k := range keys {
		members = append(members, keyring.Member{Key: k})
	}
	r, err := keyring.New(members...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// storeOf is a store with a bucket, as it is and as a mount with a keyring sees it.
func storeOf(t *testing.T) (inside objstore.Bucket, by func(*keyring.Ring) objstore.Bucket) {
	t.Helper()
	inner := openEmulator(t, "nosse", s3store.Config{AllowUnencrypted: true})
	if _, err := inner.CreateBucket(t.Context(), "bucket", objstore.CreateBucketOptions{AllowUnencrypted: true}); err != nil {
		t.Fatal(err)
	}
	open := func(s objstore.Store) objstore.Bucket {
		b, err := s.Open(t.Context(), "bucket")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return open(inner), func(r *keyring.Ring) objstore.Bucket { return open(wrap(t, inner, cse.Config{Keyring: r})) }
}

// TestVolumeKeys: who is added as a recipient of the volume key reads what was written
// before, who was removed opens the key no more, and no object changes.
func TestVolumeKeys(t *testing.T) {
	alice, bob := labAES(t, "alice"), labRSA(t)
	name := filepath.Join(t.TempDir(), "volume.key")
	v, err := keyring.NewVolume(t.Context(), keyring.Recipient{Key: alice})
	if err != nil {
		t.Fatal(err)
	}
	if err := keyring.CreateVolume(name, v.File()); err != nil {
		t.Fatal(err)
	}
	by := func(k keyring.Key) (*keyring.Ring, error) {
		f, err := keyring.ReadVolume(name)
		if err != nil {
			return nil, err
		}
		v, err := f.Open(t.Context(), k)
		if err != nil {
			return nil, err
		}
		key, err := v.VolumeKey(true)
		if err != nil {
			return nil, err
		}
		return keysTogether(t, key), nil
	}
	r, err := by(alice)
	if err != nil {
		t.Fatal(err)
	}
	inside, mount := storeOf(t)
	b := mount(r)
	data := random(3*frame + 5)
	put(t, b, "key", data, nil)
	stored, err := read(t, inside, "key", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	h, err := message.ParseHeader(stored)
	if err != nil || h.Bytes() != message.HeaderUnit || len(h.EDKs) != 1 || h.EDKs[0].Provider != "coffer-volume" {
		t.Fatalf("header of %d bytes, keys %v, %v", h.Bytes(), h.EDKs, err)
	}

	if _, err := by(bob); err == nil {
		t.Error("bob opens the volume key before he is a recipient")
	}
	change := func(do func(*keyring.Volume) (*keyring.Volume, error)) {
		t.Helper()
		if err := keyring.UpdateVolume(name, func(f keyring.VolumeFile) (keyring.VolumeFile, error) {
			v, err := f.Open(t.Context(), alice)
			if err == nil {
				v, err = do(v)
			}
			if err != nil {
				return f, err
			}
			return v.File(), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	change(func(v *keyring.Volume) (*keyring.Volume, error) {
		return v.Add(t.Context(), keyring.Recipient{Key: bob})
	})
	r, err = by(bob)
	if err != nil {
		t.Fatal(err)
	}
	theirs := mount(r)
	got, err := read(t, theirs, "key", objstore.Range{Offset: frame - 1, Length: frame + 2})
	if err != nil || !bytes.Equal(got, data[frame-1:2*frame+1]) {
		t.Errorf("bob reads %d bytes, %v", len(got), err)
	}
	put(t, theirs, "his", data, nil)
	if got, err := read(t, b, "his", objstore.Range{}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("alice reads %d bytes, %v", len(got), err)
	}
	change(func(v *keyring.Volume) (*keyring.Volume, error) {
		v, _, err := v.Remove("lab/pair")
		return v, err
	})
	if _, err := by(bob); err == nil {
		t.Error("bob opens the volume key when he is no recipient any more")
	}
	if got, err := read(t, inside, "key", objstore.Range{}); err != nil || !bytes.Equal(got, stored) {
		t.Errorf("the object has changed; %v", err)
	}
}

// TestOrigin: with a ring for authentic messages, what somebody has written under the
// public key is not read, whatever else its header claims.
func TestOrigin(t *testing.T) {
	aes, pair := labAES(t, "aes"), labRSA(t)
	strict, err := keysTogether(t, pair, aes).Authentic()
	if err != nil {
		t.Fatal(err)
	}
	_, mount := storeOf(t)
	b := mount(strict)
	data := random(1000)
	put(t, b, "ours", data, nil)
	if got, err := read(t, b, "ours", objstore.Range{}); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for name, r := range map[string]*keyring.Ring{"forged": keysTogether(t, pair), "with another AES key": keysTogether(t, labAES(t, "aes"), pair)} {
		put(t, mount(r), name, data, nil)
		for _, r := range []objstore.Range{{}, {Offset: 1, Length: 10}} {
			if _, err := read(t, b, name, r); !errors.Is(err, objstore.Integrity) {
				t.Errorf("%s, range %v: %v", name, r, err)
			}
		}
		if got, err := read(t, mount(keysTogether(t, pair, aes)), name, objstore.Range{}); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s, from anybody: %v", name, err)
		}
	}
}
