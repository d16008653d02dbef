package e2e

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Two users of a volume key, each with a key of his own: who is added reads and writes the
// same files, who is removed does not mount; and files whose key anybody can have wrapped
// are refused where the origin counts.
func TestVolumeKeyFile(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, args := range [][]string{
		{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", in("bob.pem")},
		{"rsa", "-in", in("bob.pem"), "-pubout", "-out", in("bob.pub")},
	} {
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
	}
	must(t, os.Chmod(in("bob.pem"), 0o600))
	must(t, os.WriteFile(in("alice.key"), []byte(hex.EncodeToString(random(t, 32))), 0o600))
	const aliceKey = "{type: raw-aes, namespace: lab, name: alice, key_file: alice.key}"
	bobKey := func(half string) string {
		return "{type: raw-rsa, namespace: lab, name: bob, padding: oaep-sha256, " + half + "}"
	}
	must(t, os.WriteFile(in("alice"), []byte("- "+aliceKey), 0o600))
	must(t, os.WriteFile(in("bob"), []byte("- "+bobKey("public_key: bob.pub")), 0o600))

	s := startEmulator(t, "nosse")
	env := append(baseEnv(t), s.Env()...)
	keyring := func(args ...string) string {
		t.Helper()
		out, err := runCoffer(t, env, append([]string{"keyring"}, args...)...)
		if err != nil {
			t.Fatalf("keyring %v: %v\n%s", args, err, out)
		}
		return out
	}
	id := regexp.MustCompile("[0-9a-f]{32}").FindString(keyring("init", "--for", in("alice"), in("volume.key")))
	for name, key := range map[string]string{"alice.yaml": aliceKey, "bob.yaml": bobKey("private_key: bob.pem")} {
		must(t, os.WriteFile(in(name), []byte(fmt.Sprintf("- {type: volume-key, file: volume.key, id: %s, keys: [%s]}\n", id, key)), 0o600))
	}
	// Under Bob's key, without the volume key.
	must(t, os.WriteFile(in("bob-alone.yaml"), []byte("- "+bobKey("private_key: bob.pem")), 0o600))
	both, err := os.ReadFile(in("bob.yaml"))
	must(t, err)
	must(t, os.WriteFile(in("both.yaml"), append(both, []byte("- "+bobKey("private_key: bob.pem"))...), 0o600))

	m := mountStore(t, s.Env(), "--cse-keyring", in("alice.yaml"))
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	data := string(random(t, 200_000))
	write(t, filepath.Join(d, "hers"), data)
	m.stop()
	stored := client(t, m.env).get(t, "bucket", "hers")

	if out, err := m.run("mount", "--cse-keyring", in("bob.yaml"), m.dir); err == nil || !strings.Contains(out, `it was encrypted for "lab/alice"`) {
		t.Errorf("bob mounts before he is a recipient: %v\n%s", err, out)
	}
	keyring("add", "--cse-keyring", in("alice.yaml"), "--for", in("bob"), in("volume.key"))
	m.start("--cse-keyring", in("bob.yaml"))
	want(t, filepath.Join(d, "hers"), data)
	write(t, filepath.Join(d, "his"), data+"by bob")
	m.stop()
	keyring("remove", "--cse-keyring", in("alice.yaml"), in("volume.key"), "lab/bob")
	if out, err := m.run("mount", "--cse-keyring", in("bob.yaml"), m.dir); err == nil {
		t.Errorf("bob mounts when he is no recipient any more\n%s", out)
	}
	m.start("--cse-keyring", in("alice.yaml"))
	want(t, filepath.Join(d, "his"), data+"by bob")
	m.stop()
	if client(t, m.env).get(t, "bucket", "hers") != stored {
		t.Error("the object has changed")
	}

	keyring("add", "--cse-keyring", in("alice.yaml"), "--for", in("bob"), in("volume.key"))
	m.start("--cse-keyring", in("bob-alone.yaml"))
	write(t, filepath.Join(d, "anybody's"), data)
	m.stop()
	m.env = append(m.env, "COFFER_CSE_ORIGIN=authentic")
	m.start("--cse-keyring", in("both.yaml"))
	want(t, filepath.Join(d, "hers"), data)
	if _, err := os.ReadFile(filepath.Join(d, "anybody's")); !errors.Is(err, syscall.EIO) {
		t.Errorf("a file that anybody can have written: %v", err)
	}
	m.wantLog(t, "whoever has its public key can write under it", "bucket/anybody's")
	m.stop()
}
