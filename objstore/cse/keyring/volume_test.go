package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
	"coffer/objstore/storetest"
)

// keyOf is a raw AES key of this name.
func keyOf(t testing.TB, name string, first byte) Key {
	t.Helper()
	k, err := NewRawAES("lab", name, append([]byte{first}, make([]byte, 31)...))
	require.NoError(t, err)
	return k
}

// pairOf is the pair of aPair, or its public half.
func pairOf(t testing.TB, name string, half bool) Key {
	t.Helper()
	private := aPair()
	if half {
		private = nil
	}
	k, err := NewRawRSA("lab", name, OAEPSHA256, &aPair().PublicKey, private)
	require.NoError(t, err)
	return k
}

func volumeFor(t testing.TB, keys ...Key) *Volume {
	t.Helper()
	v, err := NewVolume(t.Context(), recipients(keys...)...)
	require.NoError(t, err)
	return v
}

func recipients(keys ...Key) (all []Recipient) {
	for _, k := range keys {
		all = append(all, Recipient{Key: k})
	}
	return all
}

// written is the volume as it comes back from its file.
func written(t testing.TB, v *Volume) VolumeFile {
	t.Helper()
	text, err := v.File().text()
	require.NoError(t, err)
	f, err := ParseVolume(text)
	require.NoError(t, err)
	require.NotContains(t, string(text), base64.StdEncoding.EncodeToString(v.key.Bytes()))
	return f
}

// Recipients come and go, and the volume key is the same for all who have it.
func TestRecipientsOfAVolume(t *testing.T) {
	alice, bob, carol := keyOf(t, "alice", 1), pairOf(t, "bob", false), keyOf(t, "carol", 3)
	opens := func(v *Volume, who Key) {
		t.Helper()
		got, err := written(t, v).Open(t.Context(), keyOf(t, "nobody", 9), who)
		require.NoError(t, err)
		require.Equal(t, v.key.Bytes(), got.key.Bytes())
	}
	refuses := func(v *Volume, who Key) {
		t.Helper()
		_, err := written(t, v).Open(t.Context(), who)
		var none *NoKeyError
		require.ErrorAs(t, err, &none)
	}
	v := volumeFor(t, alice, pairOf(t, "bob", true))
	opens(v, alice)
	opens(v, bob)
	refuses(v, carol)
	refuses(v, keyOf(t, "alice", 7))
	refuses(v, pairOf(t, "bob", true))

	// Whoever opens it adds.
	byBob, err := written(t, v).Open(t.Context(), bob)
	require.NoError(t, err)
	more, err := byBob.Add(t.Context(), Recipient{Key: carol})
	require.NoError(t, err)
	for _, who := range []Key{alice, bob, carol} {
		opens(more, who)
	}
	refuses(v, carol) // the one before has not changed
	_, err = more.Add(t.Context(), Recipient{Key: alice})
	require.ErrorContains(t, err, "raw-aes lab/alice is a recipient already")
	_, err = more.Add(t.Context(), Recipient{Key: keyOf(t, "alice", 2)})
	require.NoError(t, err, "another key of the name")
	old, err := NewRawRSA("lab", "old", PKCS1, nil, aPair())
	require.NoError(t, err)
	_, err = more.Add(t.Context(), Recipient{Key: old})
	require.ErrorContains(t, err, "for decryption only")

	for _, name := range []string{"lab/alice", "raw-aes lab/alice", Fingerprint(alice)} {
		less, gone, err := more.Remove(name)
		require.NoError(t, err)
		require.Equal(t, "raw-aes lab/alice", gone.Key)
		refuses(less, alice)
		opens(less, bob)
		opens(less, carol)
	}
	_, _, err = more.Remove("lab/dave")
	require.ErrorContains(t, err, "is no recipient")
	twins, err := more.Add(t.Context(), Recipient{Key: keyOf(t, "alice", 2)})
	require.NoError(t, err)
	_, _, err = twins.Remove("lab/alice")
	require.ErrorContains(t, err, "2 recipients are called")
	_, _, err = volumeFor(t, alice).Remove("lab/alice")
	require.ErrorContains(t, err, "the last recipient")
	_, err = NewVolume(t.Context())
	require.ErrorContains(t, err, "needs a recipient")
}

// A name in a message is no name of another volume key, and a wrapped volume key is no
// data key of a message, nor the other way round.
func TestVolumeKeysAreTheirOwn(t *testing.T) {
	alice := keyOf(t, "alice", 1)
	v, w := volumeFor(t, alice), volumeFor(t, alice)
	require.NotEqual(t, v.File().ID, w.File().ID)
	r := v.File().Recipients[0]
	_, err := alice.Unwrap(t.Context(), message.Committed, message.Context{}, r.edk())
	require.Error(t, err, "as a data key")
	e, err := alice.Wrap(t.Context(), message.GenerateDataKey(message.Committed), message.Context{})
	require.NoError(t, err)
	f := v.File()
	f.Recipients = []VolumeRecipient{{Key: r.Key, Provider: e.Provider, Info: []byte(e.Info), Ciphertext: e.Ciphertext}}
	_, err = f.Open(t.Context(), alice)
	require.Error(t, err, "a data key")
	// Under an RSA key nothing is bound, and the ID decides.
	pair := pairOf(t, "bob", false)
	v, w = volumeFor(t, pair), volumeFor(t, pair)
	f = v.File()
	f.Recipients = w.File().Recipients
	_, err = f.Open(t.Context(), pair)
	require.ErrorContains(t, err, "it opens the volume key "+w.File().ID)
}

// Whoever does not have the volume key changes nothing in its file that goes unnoticed.
func TestVolumeFilesThatWereChanged(t *testing.T) {
	alice, bob := keyOf(t, "alice", 1), pairOf(t, "bob", false)
	mine := Recipient{Key: alice}
	var err error
	mine.Context, err = message.NewContext(map[string]string{"project": "0815"})
	require.NoError(t, err)
	made, err := NewVolume(t.Context(), mine, Recipient{Key: bob}, Recipient{Key: keyOf(t, "carol", 3)})
	require.NoError(t, err)
	other := volumeFor(t, bob)
	text, err := made.File().text()
	require.NoError(t, err)
	for name, change := range map[string]func(f *VolumeFile){
		"format":            func(f *VolumeFile) { f.Format += "0" },
		"ID":                func(f *VolumeFile) { f.ID = other.File().ID },
		"ID in capitals":    func(f *VolumeFile) { f.ID = strings.ToUpper(f.ID) },
		"MAC":               func(f *VolumeFile) { f.MAC[0] ^= 1 },
		"MAC of another":    func(f *VolumeFile) { f.MAC = other.File().MAC },
		"no MAC":            func(f *VolumeFile) { f.MAC = nil },
		"name":              func(f *VolumeFile) { f.Recipients[2].Key = "raw-aes lab/caroL" },
		"two names swapped": func(f *VolumeFile) { r := f.Recipients; r[1].Key, r[2].Key = r[2].Key, r[1].Key },
		"fingerprint":       func(f *VolumeFile) { f.Recipients[2].Fingerprint = f.Recipients[1].Fingerprint },
		"context of one":    func(f *VolumeFile) { f.Recipients[0].Context["project"] = "0816" },
		"context of none":   func(f *VolumeFile) { f.Recipients[1].Context = map[string]string{"a": "b"} },
		"provider":          func(f *VolumeFile) { f.Recipients[2].Provider = "Lab" },
		"info":              func(f *VolumeFile) { f.Recipients[2].Info[0] ^= 1 },
		"ciphertext":        func(f *VolumeFile) { f.Recipients[2].Ciphertext[0] ^= 1 },
		"own ciphertext":    func(f *VolumeFile) { f.Recipients[0].Ciphertext[0] ^= 1 },
		"order":             func(f *VolumeFile) { f.Recipients[0], f.Recipients[2] = f.Recipients[2], f.Recipients[0] },
		"one removed":       func(f *VolumeFile) { f.Recipients = f.Recipients[:2] },
		"one added":         func(f *VolumeFile) { f.Recipients = append(f.Recipients, other.File().Recipients...) },
		"one twice":         func(f *VolumeFile) { f.Recipients = append(f.Recipients, f.Recipients[0]) },
		"all of another":    func(f *VolumeFile) { f.Recipients = other.File().Recipients },
		"no recipients":     func(f *VolumeFile) { f.Recipients = nil },
		"a field to its neighbour": func(f *VolumeFile) {
			r := &f.Recipients[2]
			r.Key, r.Fingerprint = r.Key+r.Fingerprint[:1], r.Fingerprint[1:]
		},
	} {
		for _, who := range []Key{alice, bob} {
			f, err := ParseVolume(text)
			require.NoError(t, err)
			_, err = f.Open(t.Context(), who)
			require.NoError(t, err)
			change(&f)
			changed, err := f.text()
			require.NoError(t, err)
			if f, err = ParseVolume(changed); err == nil {
				_, err = f.Open(t.Context(), who)
			}
			require.Error(t, err, "%s, read by %s", name, who)
		}
	}
	// And no bit of the text.
	for i := range text {
		p := bytes.Clone(text)
		p[i] ^= 1
		f, err := ParseVolume(p)
		if err != nil {
			continue
		}
		if v, err := f.Open(t.Context(), alice); err == nil {
			require.Equal(t, made.File(), v.File(), "byte %d means something else", i)
		}
	}
}

func TestBadVolumeFiles(t *testing.T) {
	text, err := volumeFor(t, keyOf(t, "alice", 1)).File().text()
	require.NoError(t, err)
	for bad, want := range map[string]string{
		"":                  "no volume key file",
		"- {type: raw-aes}": "no volume key file",
		"{}":                "the format is",
		string(text) + "{}": "something follows",
		strings.Replace(string(text), `"mac"`, `"note": "", "mac"`, 1):                                 "unknown field",
		strings.Replace(string(text), volumeFormat, "coffer volume key 2", 1):                          `where "coffer volume key 1" is read`,
		strings.Replace(string(text), `"key": "raw-aes lab/alice"`, `"key": ""`, 1):                    "recipient 1 lacks something",
		strings.Replace(string(text), `"provider"`, `"context": {"aws-crypto-a": "b"}, "provider"`, 1): "reserved",
		strings.Repeat(" ", maxFile+1):                                                                 "no volume key file",
	} {
		_, err := ParseVolume([]byte(bad))
		require.ErrorIs(t, err, ErrInvalid)
		require.ErrorContains(t, err, want)
	}
	f := volumeFor(t, keyOf(t, "alice", 1)).File()
	for range maxRecipients {
		f.Recipients = append(f.Recipients, f.Recipients[0])
	}
	require.ErrorContains(t, f.validate(), "at most 256")
	_, err = f.Open(t.Context(), keyOf(t, "alice", 2))
	require.ErrorContains(t, err, "16 recipients were tried")
}

// A volume key file is made once, changed as a whole, and by one at a time.
func TestVolumeFilesOnDisk(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "volume.key")
	v := volumeFor(t, keyOf(t, "alice", 1))
	require.NoError(t, CreateVolume(name, v.File()))
	st, err := os.Stat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
	require.ErrorContains(t, CreateVolume(name, v.File()), "exists")
	f, err := ReadVolume(name)
	require.NoError(t, err)
	require.Equal(t, v.File(), f)

	// Others may read it where they could; a link goes on leading to it.
	require.NoError(t, os.Chmod(name, 0o644))
	require.NoError(t, os.Symlink("volume.key", filepath.Join(dir, "link")))
	add := func(file string, k Key) error {
		return UpdateVolume(file, func(f VolumeFile) (VolumeFile, error) {
			v, err := f.Open(t.Context(), keyOf(t, "alice", 1))
			if err != nil {
				return f, err
			}
			v, err = v.Add(t.Context(), Recipient{Key: k})
			if err != nil {
				return f, err
			}
			return v.File(), nil
		})
	}
	require.NoError(t, add(filepath.Join(dir, "link"), keyOf(t, "bob", 2)))
	st, err = os.Lstat(name)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o644), st.Mode())
	st, err = os.Lstat(filepath.Join(dir, "link"))
	require.NoError(t, err)
	require.NotZero(t, st.Mode()&os.ModeSymlink)

	// Many at once: each that is told so has been added, and no other.
	var wg sync.WaitGroup
	var mu sync.Mutex
	added := 2
	for i := range 20 {
		wg.Go(func() {
			err := add(name, keyOf(t, fmt.Sprint("many", i), 5))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				added++
			} else if !strings.Contains(err.Error(), "is being changed") {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err = ReadVolume(name)
	require.NoError(t, err)
	require.Len(t, f.Recipients, added)

	// A change that fails leaves all as it was.
	before, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Error(t, UpdateVolume(name, func(f VolumeFile) (VolumeFile, error) { return VolumeFile{}, errors.New("no") }))
	after, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.ErrorContains(t, UpdateVolume(filepath.Join(dir, "none"), nil), "no such file")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2)
}

// A keyring with a volume key: messages are for the volume key, whoever opened it.
func TestVolumeKeyInAKeyring(t *testing.T) {
	private, public := pemOf(t, aPair())
	dir := files(t, map[string]string{"private.pem": private, "public.pem": public, "aes": aesKey, "other": strings.Repeat("f", 64)})
	load := func(text string) (*Ring, error) {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(text), 0o600))
		r, _, err := Load(t.Context(), filepath.Join(dir, "ring"), nil)
		return r, err
	}
	const rsa = "{type: raw-rsa, namespace: lab, name: bob, padding: oaep-sha256, private_key: private.pem}"
	const aes = "{type: raw-aes, namespace: lab, name: alice, key_file: aes}"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "for"), []byte("- "+aes+"\n- "+rsa+"\n- {type: raw-aes, namespace: lab, name: old, key_file: other, decrypt_only: true}\n"), 0o600))
	to, err := Recipients(t.Context(), filepath.Join(dir, "for"), nil)
	require.NoError(t, err)
	require.Len(t, to, 2)
	v, err := NewVolume(t.Context(), to...)
	require.NoError(t, err)
	require.NoError(t, CreateVolume(filepath.Join(dir, "volume.key"), v.File()))
	id := v.File().ID

	entry := func(keys, more string) string {
		return "- {type: volume-key, file: volume.key, keys: [" + keys + "]" + more + "}\n"
	}
	w, err := load(entry(aes, ""))
	require.NoError(t, err)
	require.False(t, w.WrapsByKMS())
	m, err := w.Wrap(t.Context(), message.Context{})
	require.NoError(t, err)
	h := headerOf(t, m)
	require.Len(t, h.EDKs, 1)
	require.Equal(t, "coffer-volume", h.EDKs[0].Provider)
	require.True(t, strings.HasPrefix(h.EDKs[0].Info, id))
	for text, authentic := range map[string]bool{
		entry(aes, ""):                                  true,
		entry(rsa, ", decrypt_only: true"):              false, // anybody could have made the file
		entry(rsa, ", id: "+id):                         true,
		entry(rsa+", "+aes, ""):                         true,
		entry(aes+", "+rsa, ""):                         true,
		entry(aes, ", decrypt_only: true") + "- " + rsa: true,
	} {
		r, err := load(text)
		require.NoError(t, err, text)
		key, by, err := r.Unwrap(t.Context(), h.Suite, h.Context, h.EDKs)
		require.NoError(t, err, text)
		require.Equal(t, m.Key.Bytes(), key.Bytes())
		require.Equal(t, authentic, by.Authenticates(), text)
		require.Equal(t, "volume-key "+id, by.String())
	}
	_, err = load(entry(rsa, "")) // and would read what is written for it
	require.ErrorContains(t, err, "id: "+id+" in the keyring")
	r, err := load(entry(aes, ", decrypt_only: true") + "- " + rsa)
	require.NoError(t, err)
	m, err = r.Wrap(t.Context(), message.Context{})
	require.NoError(t, err)
	require.Len(t, m.EDKs, 1)
	require.Equal(t, "lab", m.EDKs[0].Provider, "new messages are for the other key")

	// Its keys are what opens a file by itself, too.
	for text, n := range map[string]int{entry(rsa+", "+aes, ""): 2, "- " + aes: 1, entry(aes, "") + "- " + rsa: 2} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(text), 0o600))
		keys, _, err := Openers(t.Context(), filepath.Join(dir, "ring"), nil)
		require.NoError(t, err)
		require.Len(t, keys, n)
	}

	for text, want := range map[string]string{
		"- {type: volume-key, file: volume.key}":                                                              "has a file, and the keys",
		"- {type: volume-key, keys: [" + aes + "]}":                                                           "has a file, and the keys",
		entry(aes, ", name: a"):                                                                               "none of the fields of other keys",
		entry(aes, ", key_id: a"):                                                                             "those of an aws-kms key",
		entry("{type: raw-aes, namespace: lab, name: alice, key_file: other}", ""):                            "wrapped by another key of this name",
		entry("{type: raw-aes, namespace: lab, name: dave, key_file: other}", ""):                             `it was encrypted for "lab/alice", "lab/bob"`,
		entry("{type: raw-rsa, namespace: lab, name: bob, padding: oaep-sha256, public_key: public.pem}", ""): "only its public key is there",
		entry(aes, ", id: 00112233445566778899aabbccddeeff"):                                                  "and not of 00112233445566778899aabbccddeeff",
		entry(aes+", {type: raw-des}", ""):                                                                    `key 1: its key 2: type "raw-des"`,
		entry("{type: volume-key, file: volume.key, keys: ["+aes+"]}", ""):                                    "a volume key is not opened by another",
		strings.Replace(entry(aes, ""), "volume.key", "none", 1):                                              "no such file",
		strings.Replace(entry(aes, ""), "volume.key", "aes", 1):                                               "no volume key file",
		"- {type: raw-aes, namespace: lab, name: alice, key_file: aes, file: volume.key}":                     "those of a volume-key",
	} {
		_, err := load(text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "\n", text)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte(entry(aes, "")), 0o600))
	_, err = Recipients(t.Context(), filepath.Join(dir, "ring"), nil)
	require.ErrorContains(t, err, "key 1: a volume key is not wrapped for another")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ring"), []byte("- {type: raw-aes, namespace: lab, name: alice, key_file: aes, decrypt_only: true}"), 0o600))
	_, err = Recipients(t.Context(), filepath.Join(dir, "ring"), nil)
	require.ErrorContains(t, err, "no key that new messages are for")
}

const goldenVolumeKey = "1f15fb23b03036fc348c3260473cb2b71178f76dcbd8cafaa2156e6a8909a853"

// A volume key file of the first version is opened by every later one.
func TestGoldenVolumeFile(t *testing.T) {
	f, err := ReadVolume(filepath.Join("testdata", "volume-1.key"))
	require.NoError(t, err)
	private, err := os.ReadFile(filepath.Join("testdata", "private.pem"))
	require.NoError(t, err)
	key, err := ParsePrivateKey(private, nil)
	require.NoError(t, err)
	pair, err := NewRawRSA("MyAppKeys", "S3RSAKey", OAEPSHA256, nil, key)
	require.NoError(t, err)
	for _, k := range []Key{pair, keyOf(t, "backup", 1)} {
		v, err := f.Open(t.Context(), k)
		require.NoError(t, err)
		require.Equal(t, goldenVolumeKey, fmt.Sprintf("%x", v.key.Bytes()))
	}
}

// The volume key is to be had without Coffer, by what FORMAT.md says.
func TestOpenSSLOpensAVolumeFile(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		storetest.Missing(t, "no openssl here: %v", err)
	}
	v := volumeFor(t, pairOf(t, "bob", true))
	var f struct{ Recipients []struct{ Ciphertext []byte } }
	text, err := v.File().text()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &f))
	private, _ := pemOf(t, aPair())
	dir := files(t, map[string]string{"private.pem": private, "wrapped": string(f.Recipients[0].Ciphertext)})
	cmd := exec.Command("openssl", "pkeyutl", "-decrypt", "-inkey", "private.pem", "-in", "wrapped",
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
	cmd.Dir = dir
	raw, err := cmd.Output()
	require.NoError(t, err)
	exported, err := NewRawAES(volumeNamespace, v.File().ID, raw)
	require.NoError(t, err)
	own, err := v.VolumeKey(true)
	require.NoError(t, err)
	require.Equal(t, own.Fingerprint(), exported.Fingerprint())
}

func FuzzParseVolume(f *testing.F) {
	text, err := os.ReadFile(filepath.Join("testdata", "volume-1.key"))
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte(`{"format": "coffer volume key 1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := ParseVolume(text)
		if err != nil {
			return
		}
		again, err := v.text()
		require.NoError(t, err)
		w, err := ParseVolume(again)
		require.NoError(t, err)
		require.Equal(t, len(v.Recipients), len(w.Recipients))
		_, err = v.Open(t.Context(), keyOf(t, "backup", 2))
		require.Error(t, err)
	})
}

// In a group whose keys all have one name each member opens the volume key.
func TestManyRecipientsOfOneName(t *testing.T) {
	var keys []Key
	for i := range 2*maxAttempts + 1 {
		keys = append(keys, keyOf(t, "same", byte(i)))
	}
	f := written(t, volumeFor(t, keys...))
	for i, k := range keys {
		_, err := f.Open(t.Context(), k)
		require.NoError(t, err, i)
	}
}

// A volume key file that is changed stays that of the group which reads it.
func TestChangedVolumeKeyFileKeepsItsGroup(t *testing.T) {
	if os.Getuid() != 0 {
		storetest.Skip(t, "only root has files of other users")
	}
	name := filepath.Join(t.TempDir(), "volume.key")
	require.NoError(t, CreateVolume(name, volumeFor(t, keyOf(t, "alice", 1)).File()))
	require.NoError(t, os.Chown(name, 1234, 5678))
	require.NoError(t, os.Chmod(name, 0o640))
	require.NoError(t, UpdateVolume(name, func(f VolumeFile) (VolumeFile, error) { return f, nil }))
	st, err := os.Stat(name)
	require.NoError(t, err)
	sys := st.Sys().(*syscall.Stat_t)
	require.Equal(t, []uint32{1234, 5678, 0o640}, []uint32{sys.Uid, sys.Gid, uint32(st.Mode())})
}
