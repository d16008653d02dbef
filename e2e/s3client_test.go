package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Objects that the official clients of the S3 Encryption Client have written are shown
// with their sizes and read, renamed as they are, and replaced by messages; what is
// changed, or is of an old version, is an error.
func TestObjectsOfTheS3EncryptionClient(t *testing.T) {
	const testdata = "../objstore/cse/s3ec/testdata/"
	var golden struct {
		Plaintext string
		Objects   []struct {
			Name, Object string
			Meta         map[string]string
		}
	}
	text, err := os.ReadFile(testdata + "golden.json")
	must(t, err)
	must(t, json.Unmarshal(text, &golden))
	dir := t.TempDir()
	private, err := os.ReadFile(testdata + "golden.pem")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "private.pem"), private, 0o600))
	key := make([]byte, 32)
	for i := range key {
		key[i] = 0x40 + byte(i)
	}
	must(t, os.WriteFile(filepath.Join(dir, "aes"), []byte(hex.EncodeToString(key)), 0o600))
	ring := filepath.Join(dir, "keys.yaml")
	must(t, os.WriteFile(ring, []byte(`- {type: raw-aes, namespace: any, name: name, key_file: aes}
- {type: raw-rsa, namespace: any, name: name, padding: oaep-sha256, private_key: private.pem}
`), 0o600))

	s := startEmulator(t, "nosse")
	m := mountStore(t, s.Env(), "--cse-keyring", ring)
	d := m.path("bucket")
	must(t, os.Mkdir(d, 0o755))
	c := client(t, m.env)
	n := 0
	for _, g := range golden.Objects {
		if strings.Contains(g.Name, "KMS") {
			continue
		}
		n++
		data, err := base64.StdEncoding.DecodeString(g.Object)
		must(t, err)
		c.putWith(t, "bucket", "object", string(data), "", g.Meta)
		data[len(data)-1] ^= 1
		c.putWith(t, "bucket", "damaged", string(data), "", g.Meta)
		for _, name := range []string{"object", "damaged"} {
			st, err := os.Stat(filepath.Join(d, name))
			must(t, err)
			if st.Size() != int64(len(golden.Plaintext)) {
				t.Errorf("%s: %s has %d bytes", g.Name, name, st.Size())
			}
		}
		_, err = os.ReadFile(filepath.Join(d, "damaged"))
		wantErrno(t, g.Name, err, syscall.EIO)
		want(t, filepath.Join(d, "object"), golden.Plaintext)
		version := g.Name[1:2]
		if got := xattr(t, filepath.Join(d, "object"), "user.s3.cse"); !strings.HasPrefix(got, "s3ec-"+version+"/") {
			t.Errorf("%s: user.s3.cse is %q", g.Name, got)
		}
		for _, name := range xattrNames(t, filepath.Join(d, "object")) {
			if strings.HasPrefix(name, "user.x-amz") {
				t.Errorf("%s: %s is shown", g.Name, name)
			}
		}
		must(t, os.Chmod(filepath.Join(d, "object"), 0o600))
		must(t, os.Rename(filepath.Join(d, "object"), filepath.Join(d, "renamed"+strconv.Itoa(n))))
		want(t, filepath.Join(d, "renamed"+strconv.Itoa(n)), golden.Plaintext)
		if version == "2" {
			m.wantLog(t, "do not commit to their key")
		}
	}
	if n != 4 {
		t.Errorf("%d objects", n)
	}
	must(t, os.Remove(filepath.Join(d, "damaged")))

	f, err := os.OpenFile(filepath.Join(d, "renamed1"), os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	_, err = f.WriteString(" and more")
	must(t, err)
	must(t, f.Close())
	want(t, filepath.Join(d, "renamed1"), golden.Plaintext+" and more")
	for name := range c.meta(t, "bucket", "renamed1") {
		if strings.HasPrefix(name, "x-amz-") {
			t.Errorf("a file that was changed has %s", name)
		}
	}
	c.putWith(t, "bucket", "old", "ciphertext", "", map[string]string{"x-amz-key": "AAAA", "x-amz-iv": "AAAA", "x-amz-matdesc": "{}"})
	_, err = os.ReadFile(filepath.Join(d, "old"))
	wantErrno(t, "version 1", err, syscall.ENOTSUP)
	m.wantLog(t, "bucket/old", "version 1")
	out, err := m.run("verify", "--cse-keyring", ring, "s3://bucket")
	if err == nil || !strings.Contains(out, "5 objects") || !strings.Contains(out, "1 cannot be trusted") {
		t.Errorf("verify: %s, %v", out, err)
	}
}
