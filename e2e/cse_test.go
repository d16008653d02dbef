package e2e

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"coffer/objstore/cse/message"
	"coffer/objstore/emulator"
)

// keyringFile writes a keyring with an AES key and an RSA key, as openssl makes it.
func keyringFile(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", filepath.Join(dir, "private.pem")).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	must(t, os.Chmod(filepath.Join(dir, "private.pem"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "aes"), []byte(hex.EncodeToString(random(t, 32))), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "keys.yaml"), []byte(`# two recipients
- {type: raw-rsa, namespace: MyAppKeys, name: S3RSAKey, padding: oaep-sha256, private_key: private.pem}
- {type: raw-aes, namespace: lab, name: backup, key_file: aes}
`), 0o600))
	return filepath.Join(dir, "keys.yaml")
}

// Sizes around frames and around what an upload has parts of come back as they were, by
// whole reads, in pieces and from the end; ls shows them, and what lies in the store is
// a message.
func TestClientSideEncryption(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	const frame = 64 << 10
	sizes := []int{0, 1, frame - 1, frame, frame + 1, 3*frame + 7, 1 << 20, 9<<20 + 5, 24 << 20}
	data := map[string][]byte{}
	for _, n := range sizes {
		name := fmt.Sprint("f", n)
		data[name] = random(t, n)
		must(t, os.WriteFile(filepath.Join(d, name), data[name], 0o640))
	}
	for range 2 { // from what is known, and by a new mount
		for name, want := range data {
			st, err := os.Stat(filepath.Join(d, name))
			must(t, err)
			if st.Size() != int64(len(want)) || st.Mode().Perm() != 0o640 {
				t.Errorf("%s: %d bytes, mode %v", name, st.Size(), st.Mode())
			}
			got, err := os.ReadFile(filepath.Join(d, name))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: other bytes, %v", name, err)
			}
			f, err := os.Open(filepath.Join(d, name))
			must(t, err)
			for _, r := range [][2]int{{len(want) - 10, 20}, {frame - 5, 10}, {len(want) / 2, 4096}} {
				if r[0] < 0 || r[0] >= len(want) {
					continue
				}
				p := make([]byte, r[1])
				n, _ := f.ReadAt(p, int64(r[0]))
				if end := min(r[0]+r[1], len(want)); !bytes.Equal(p[:n], want[r[0]:end]) {
					t.Errorf("%s: %d bytes at %d are others", name, r[1], r[0])
				}
			}
			must(t, f.Close())
		}
		m.stop()
		m.start("--cse-keyring", ring)
	}
	c := client(t, m.env)
	keys := c.keys(t, "bucket")
	if len(keys) != len(sizes) {
		t.Errorf("the store has %v", keys)
	}
	for key := range keys {
		h, err := message.ParseHeader([]byte(c.get(t, "bucket", key)))
		if err != nil || h.Bytes() != message.HeaderUnit || len(h.EDKs) != 2 {
			t.Errorf("%s is no message: %v", key, err)
		}
	}
}

// What is changed in the store is an error of who reads it, and of nobody else; without
// the key it is no permission.
func TestClientSideEncryptionRefuses(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	for _, name := range []string{"damaged", "cut", "plain", "whole", "exchanged"} {
		write(t, filepath.Join(d, name), strings.Repeat("some text of "+name+"\n", 20_000))
	}
	m.stop()
	c := client(t, m.env)
	store := func(key, data string) {
		c.putWith(t, "bucket", key, data, "", c.meta(t, "bucket", key))
	}
	damaged := []byte(c.get(t, "bucket", "damaged"))
	damaged[100_000] ^= 1
	store("damaged", string(damaged))
	store("cut", c.get(t, "bucket", "cut")[:1024+3*(64<<10+32)])
	store("plain", "plaintext")
	c.putWith(t, "bucket", "exchanged", c.get(t, "bucket", "whole"), "", c.meta(t, "bucket", "whole"))
	m.start("--cse-keyring", ring)
	for _, name := range []string{"damaged", "cut", "plain"} {
		if _, err := os.ReadFile(filepath.Join(d, name)); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", name, err)
		}
		m.wantLog(t, "bucket/"+name)
	}
	want(t, filepath.Join(d, "whole"), strings.Repeat("some text of whole\n", 20_000))
	want(t, filepath.Join(d, "exchanged"), strings.Repeat("some text of whole\n", 20_000))
	m.wantLog(t, "not stored under its path", "bucket/exchanged")
	m.stop()

	m.env = append(m.env, "COFFER_CSE_BINDING=strict", "COFFER_CSE_MODE=auto")
	m.start("--cse-keyring", ring)
	if _, err := os.ReadFile(filepath.Join(d, "exchanged")); !errors.Is(err, syscall.EIO) {
		t.Errorf("exchanged: %v", err)
	}
	want(t, filepath.Join(d, "plain"), "plaintext")
	m.stop()

	m.start("--cse-keyring", keyringFile(t))
	if _, err := os.ReadFile(filepath.Join(d, "whole")); !errors.Is(err, syscall.EACCES) {
		t.Errorf("with other keys: %v", err)
	}
	if st, err := os.Stat(filepath.Join(d, "whole")); err != nil || st.Size() != 380_000 {
		t.Errorf("with other keys: %v, %v", st, err)
	}
	write(t, filepath.Join(d, "whole"), "mine now")
	want(t, filepath.Join(d, "whole"), "mine now")
	must(t, os.Remove(filepath.Join(d, "damaged")))
}

// Data that could not be stored is kept, and stored encrypted; not without the keyring.
func TestClientSideEncryptionRescues(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	rescue := filepath.Join(t.TempDir(), "rescue.key")
	must(t, os.WriteFile(rescue, random(t, 32), 0o600))
	args := []string{"--cse-keyring", ring, "--rescue-key-file", rescue}
	m := mountStore(t, s.Env(), args...)
	f := m.path("bucket", "file")
	must(t, os.Mkdir(m.path("bucket"), 0o755))
	write(t, f, "first")
	theirs := mountStore(t, s.Env(), "--cse-keyring", ring)
	h, err := os.OpenFile(f, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = h.WriteString("kept")
	must(t, err)
	write(t, theirs.path("bucket", "file"), "theirs")
	if err := h.Close(); !errors.Is(err, syscall.ESTALE) {
		t.Fatalf("close: %v", err)
	}
	m.stop()
	id := m.onlyRescued("--rescue-key-file", rescue).ID
	if out, err := m.run("rescue", "commit", "--allow-unencrypted", "--rescue-key-file", rescue, id, "s3://bucket/mine"); err == nil || !strings.Contains(out, "--cse-keyring") {
		t.Errorf("without the keyring: %s, %v", out, err)
	}
	if out, err := m.run("rescue", "commit", "--cse-keyring", ring, "--rescue-key-file", rescue, id, "s3://bucket/mine"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want(t, theirs.path("bucket", "mine"), "kept")
	if got := xattr(t, theirs.path("bucket", "mine"), "user.s3.encryption"); got != "CSE-C" {
		t.Errorf("it is stored as %q", got)
	}
}

// Data keys of a KMS: few requests for many files, the context of the keyring file in
// each, and who is denied the key reads nothing.
func TestClientSideEncryptionByKMS(t *testing.T) {
	s := startEmulator(t, "nosse")
	arn, err := s.CreateKMSKey("mine")
	must(t, err)
	ring := filepath.Join(t.TempDir(), "keys.yaml")
	must(t, os.WriteFile(ring, []byte("volume: v\nkeys:\n- {type: aws-kms, key_id: alias/mine, encryption_context: {project: '0815'}}\n"), 0o600))
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	const files = 200
	for i := range files {
		write(t, filepath.Join(d, fmt.Sprint(i)), fmt.Sprint("file ", i))
	}
	if n := count(s, "kms:Encrypt", ""); n != 1 {
		t.Errorf("%d data keys for %d files", n, files)
	}
	if got := xattr(t, filepath.Join(d, "1"), "user.s3.encryption"); got != "CSE-KMS" {
		t.Errorf("encryption %q", got)
	}
	h, err := message.ParseHeader([]byte(client(t, m.env).get(t, "bucket", "1")))
	must(t, err)
	for name, value := range map[string]string{"project": "0815", "coffer-vol": "v"} {
		if got, _ := h.Context.Get(name); got != value {
			t.Errorf("%s is %q in the context", name, got)
		}
	}
	if h.EDKs[0].Info != arn {
		t.Errorf("the data key is under %q, not %q", h.EDKs[0].Info, arn)
	}
	read := func() (failed error) {
		for i := range files {
			got, err := os.ReadFile(filepath.Join(d, fmt.Sprint(i)))
			if err != nil {
				return err
			}
			if string(got) != fmt.Sprint("file ", i) {
				t.Errorf("file %d: %q", i, got)
			}
		}
		return nil
	}
	m.stop()
	m.start("--cse-keyring", ring)
	must(t, read())
	if n := count(s, "kms:Decrypt", ""); n != 1 {
		t.Errorf("%d data keys were asked for to read %d files", n, files)
	}
	for what, c := range map[string]struct{ begin, end func() error }{
		"denied":   {func() error { return s.DenyKMS(arn, true) }, func() error { return s.DenyKMS(arn, false) }},
		"disabled": {func() error { return s.DisableKMSKey(arn) }, func() error { return s.EnableKMSKey(arn) }},
	} {
		m.stop()
		must(t, c.begin())
		m.start("--cse-keyring", ring)
		if err := read(); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: reading: %v", what, err)
		}
		if err := os.WriteFile(filepath.Join(d, "new"), []byte("x"), 0o600); !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: writing: %v", what, err)
		}
		m.wantLog(t, "encryption key unavailable", "alias/mine")
		must(t, c.end())
		must(t, read())
	}
	s.Inject(emulator.Fault{Verb: "kms:Decrypt", Status: 400, Code: "ThrottlingException", Count: 1})
	m.stop()
	m.start("--cse-keyring", ring)
	must(t, read())
}

// What a mount stored is decrypted by the program alone, what that encrypted is read by a
// mount, and verify finds what was changed.
func TestVerifyAndDecrypt(t *testing.T) {
	s := startEmulator(t, "nosse")
	ring := keyringFile(t)
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	must(t, os.Mkdir(filepath.Join(d, "dir"), 0o755))
	data := string(random(t, 200_000))
	for _, name := range []string{"one", "two", "dir/three"} {
		write(t, filepath.Join(d, name), data)
	}
	c := client(t, m.env)
	stored := filepath.Join(t.TempDir(), "stored")
	must(t, os.WriteFile(stored, []byte(c.get(t, "bucket", "one")), 0o600))
	if out, err := m.run("decrypt", "--cse-keyring", ring, stored); err != nil || out != data {
		t.Errorf("decrypt: %d bytes, %v", len(out), err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(plain, []byte(data), 0o600))
	sealed, err := m.run("encrypt-file", "--cse-keyring", ring, plain)
	must(t, err)
	c.put(t, "bucket", "four", sealed)
	want(t, filepath.Join(d, "four"), data)

	if out, err := m.run("check", "--cse-keyring", ring, "s3://bucket"); err != nil || !strings.Contains(out, "CSE-C") {
		t.Errorf("check: %s, %v", out, err)
	}
	if out, err := m.run("verify", "--cse-keyring", ring, "s3://bucket"); err != nil || !strings.Contains(out, "4 objects with 800000 bytes were read, 0 cannot be trusted") {
		t.Errorf("verify: %s, %v", out, err)
	}
	changed := []byte(c.get(t, "bucket", "two"))
	changed[150_000] ^= 1
	c.putWith(t, "bucket", "two", string(changed), "", c.meta(t, "bucket", "two"))
	c.put(t, "bucket", "dir/plain", "plaintext")
	out, err := m.run("verify", "--cse-keyring", ring, "--json", "s3://bucket")
	if err == nil {
		t.Error("nothing is damaged")
	}
	var report struct {
		Objects int
		Damaged []struct{ Key string }
	}
	must(t, json.NewDecoder(strings.NewReader(out[strings.Index(out, "{\n"):])).Decode(&report)) // behind lines of the log
	keys := []string{}
	for _, d := range report.Damaged {
		keys = append(keys, d.Key)
	}
	slices.Sort(keys)
	if report.Objects != 5 || !slices.Equal(keys, []string{"dir/plain", "two"}) {
		t.Errorf("verify: %s", out)
	}
	if out, err := m.run("verify", "--cse-keyring", ring, "s3://bucket/dir"); err == nil || !strings.Contains(out, "dir/plain") {
		t.Errorf("verify of a prefix: %s, %v", out, err)
	}
	must(t, os.Truncate(stored, 100_000))
	if out, err := m.run("decrypt", "--cse-keyring", ring, stored); err == nil || !strings.Contains(out, "cut off") {
		t.Errorf("decrypt of what was cut: %v", err)
	}
}
