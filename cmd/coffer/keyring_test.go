package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// keyFiles changes to a directory with keys of alice and bob, and keyrings for them:
// NAME.pub.yaml has what others know, NAME.yaml what they have.
func keyFiles(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(pair)
	require.NoError(t, err)
	public, err := x509.MarshalPKIXPublicKey(pair.Public())
	require.NoError(t, err)
	const bob = "- {type: raw-rsa, namespace: lab, name: bob, padding: oaep-sha256, "
	for name, text := range map[string]string{
		"alice.key":    strings.Repeat("a1", 32),
		"alice.yaml":   "- {type: raw-aes, namespace: lab, name: alice, key_file: alice.key}\n",
		"bob.pem":      string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		"bob.pub":      string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"bob.yaml":     bob + "private_key: bob.pem}\n",
		"bob.pub.yaml": bob + "public_key: bob.pub}\n",
	} {
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
}

// succeed runs a command line that must not fail.
func succeed(t *testing.T, line string) string {
	t.Helper()
	code, out, errOut := runIn(t, strings.Fields(line)...)
	require.Zero(t, code, errOut)
	require.Empty(t, errOut)
	return out
}

// Recipients are added and removed; what was encrypted before is read by those who came,
// and files are what they were where a change is refused.
func TestKeyringCommands(t *testing.T) {
	keyFiles(t)
	out := succeed(t, "keyring init --for alice.yaml volume.key")
	require.Contains(t, out, "raw-aes lab/alice")
	var shown volumeReport
	require.NoError(t, json.Unmarshal([]byte(succeed(t, "keyring show --json volume.key")), &shown))
	require.Len(t, shown.ID, 32)
	require.False(t, shown.Verified)
	require.Contains(t, out, "id: "+shown.ID)
	st, err := os.Stat("volume.key")
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode())
	ring := func(who string) string {
		text, err := os.ReadFile(who + ".yaml")
		require.NoError(t, err)
		entry := "- {type: volume-key, file: volume.key, id: " + shown.ID + ", keys: [" + strings.TrimPrefix(strings.TrimSpace(string(text)), "- ") + "]}\n"
		name := "ring-" + who + ".yaml"
		require.NoError(t, os.WriteFile(name, []byte(entry), 0o600))
		return name
	}

	require.NoError(t, os.WriteFile("plain", []byte("what is secret"), 0o600))
	sealed := succeed(t, "encrypt-file --cse-keyring "+ring("alice")+" plain")
	require.NoError(t, os.WriteFile("sealed", []byte(sealed), 0o600))
	code, _, errOut := runIn(t, "decrypt", "--cse-keyring", ring("bob"), "sealed")
	require.NotZero(t, code)
	require.Contains(t, errOut, `no key of the keyring opens it; it was encrypted for "lab/alice"`)

	// By a keyring with an entry for the volume key, and by one with the key alone.
	require.Contains(t, succeed(t, "keyring add --cse-keyring "+ring("alice")+" --for bob.pub.yaml volume.key"), "raw-rsa lab/bob added")
	require.Equal(t, "what is secret", succeed(t, "decrypt --cse-keyring "+ring("bob")+" sealed"))
	require.Equal(t, "what is secret", succeed(t, "decrypt --cse-keyring "+ring("alice")+" sealed"))
	for file, verified := range map[string]bool{"alice.yaml": true, "bob.yaml": false, ring("bob"): true, "bob.pub.yaml": false} {
		require.NoError(t, json.Unmarshal([]byte(succeed(t, "keyring show --json --cse-keyring "+file+" volume.key")), &shown))
		require.Equal(t, verified, shown.Verified, file)
		require.Len(t, shown.Recipients, 2)
	}
	require.Contains(t, succeed(t, "keyring show volume.key"), "not verified: that takes --cse-keyring")
	require.Contains(t, succeed(t, "keyring show --cse-keyring bob.pub.yaml volume.key"), "not verified: no key")
	table := succeed(t, "keyring show --cse-keyring alice.yaml volume.key")
	require.Contains(t, table, shown.ID+", verified")
	for _, r := range shown.Recipients {
		require.Contains(t, table, r.Key)
		require.Contains(t, table, r.Fingerprint)
	}

	before, err := os.ReadFile("volume.key")
	require.NoError(t, err)
	for line, want := range map[string]string{
		"init --for alice.yaml volume.key":                             "volume.key exists",
		"init --for alice.yaml none/volume.key":                        "no such file",
		"add --cse-keyring alice.yaml --for bob.pub.yaml volume.key":   "raw-rsa lab/bob is a recipient already",
		"add --cse-keyring bob.pub.yaml --for alice.yaml volume.key":   "only its public key is there",
		"remove --cse-keyring alice.yaml volume.key lab/carol":         `"lab/carol" is no recipient`,
		"remove --cse-keyring alice.yaml volume.key lab/bob lab/alice": "the last recipient",
		"remove --cse-keyring alice.yaml alice.key lab/bob":            "no volume key file",
		"show alice.yaml": "no volume key file",
		"show none":       "no such file",
	} {
		code, out, errOut := runIn(t, append([]string{"keyring"}, strings.Fields(line)...)...)
		require.NotZero(t, code, line)
		require.Empty(t, out, line)
		require.Contains(t, errOut, want, line)
		require.Equal(t, 1, strings.Count(errOut, "\n"), "one clear line: %s", errOut)
	}
	after, err := os.ReadFile("volume.key")
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.Contains(t, succeed(t, "keyring remove --cse-keyring bob.yaml volume.key lab/alice"), "can still read")
	require.Equal(t, "what is secret", succeed(t, "decrypt --cse-keyring "+ring("bob")+" sealed"))
	code, _, _ = runIn(t, "decrypt", "--cse-keyring", ring("alice"), "sealed")
	require.NotZero(t, code)
	left, err := filepath.Glob("*.new")
	require.NoError(t, err)
	require.Empty(t, left)

	// A list that somebody has changed is not shown as one that is right.
	text := strings.Replace(string(before), "raw-rsa lab/bob", "raw-rsa lab/eve", 1)
	require.NoError(t, os.WriteFile("volume.key", []byte(text), 0o600))
	code, out, errOut = runIn(t, "keyring", "show", "--cse-keyring", "alice.yaml", "volume.key")
	require.NotZero(t, code)
	require.Empty(t, out)
	require.Contains(t, errOut, "somebody has changed the volume key file")
}

func TestKeyringShowsKeys(t *testing.T) {
	keyFiles(t)
	require.NoError(t, os.WriteFile("both.yaml", []byte("- {type: raw-aes, namespace: lab, name: alice, key_file: alice.key, decrypt_only: true}\n"+
		"- {type: raw-rsa, namespace: lab, name: bob, padding: oaep-sha256, public_key: bob.pub}\n"), 0o600))
	var shown keyringReport
	require.NoError(t, json.Unmarshal([]byte(succeed(t, "keyring show --json --cse-keyring both.yaml")), &shown))
	require.Len(t, shown.Keys, 2)
	require.Equal(t, keyReport{"raw-aes lab/alice", shown.Keys[0].Fingerprint, true, true}, shown.Keys[0])
	require.Equal(t, keyReport{"raw-rsa lab/bob", shown.Keys[1].Fingerprint, false, false}, shown.Keys[1])
	table := succeed(t, "keyring show --cse-keyring both.yaml")
	require.Regexp(t, `raw-aes lab/alice .* no .* who can read`, table)
	require.Regexp(t, `raw-rsa lab/bob .* yes .* anybody`, table)
	require.NotContains(t, table, strings.Repeat("a1", 4))

	// The fingerprint of a recipient is that of his key.
	succeed(t, "keyring init --for bob.pub.yaml volume.key")
	require.Contains(t, succeed(t, "keyring show volume.key"), shown.Keys[1].Fingerprint)
}

func TestKeyringUsage(t *testing.T) {
	keyFiles(t)
	require.NoError(t, os.WriteFile("old.yaml", []byte("- {type: raw-aes, namespace: lab, name: alice, key_file: alice.key, decrypt_only: true}\n"), 0o600))
	for line, want := range map[string]string{
		"":                                "wanted: init|add|remove|show",
		"list":                            "none of init, add, remove, show",
		"init volume.key":                 "--for is needed",
		"init --for alice.yaml":           "wanted: VOLUME",
		"init --for none volume.key":      "no such file",
		"init --for old.yaml volume.key":  "no key that new messages are for",
		"add --for alice.yaml volume.key": "--cse-keyring is needed",
		"remove volume.key":               "wanted: VOLUME RECIPIENT...",
		"remove volume.key lab/bob":       "--cse-keyring is needed",
		"show":                            "a volume key file is needed, or --cse-keyring",
	} {
		code, out, errOut := runIn(t, append([]string{"keyring"}, strings.Fields(line)...)...)
		require.Equal(t, exitUsage, code, line+errOut)
		require.Empty(t, out, line)
		require.Contains(t, errOut, want, line)
	}
	for _, c := range newKeyring(&app{env: os.LookupEnv}).Commands() {
		requireNarrow(t, c)
	}
	requireNarrow(t, newKeyring(&app{env: os.LookupEnv}))
}

// requireNarrow fails where the description of a command is wider than a terminal.
func requireNarrow(t *testing.T, c *cobra.Command) {
	t.Helper()
	for line := range strings.Lines(c.Long) {
		require.LessOrEqual(t, len([]rune(strings.TrimSpace(line))), 80, "%s: %s", c.Name(), line)
	}
}

// decrypt refuses with cse-origin: authentic what was opened by an RSA key.
func TestOriginOfAMessage(t *testing.T) {
	keyFiles(t)
	require.NoError(t, os.WriteFile("plain", []byte("what is secret"), 0o600))
	sealed := succeed(t, "encrypt-file --cse-keyring bob.pub.yaml plain")
	require.NoError(t, os.WriteFile("sealed", []byte(sealed), 0o600))
	alice, err := os.ReadFile("alice.yaml")
	require.NoError(t, err)
	bob, err := os.ReadFile("bob.yaml")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile("both.yaml", append(bob, alice...), 0o600))
	require.Equal(t, "what is secret", succeed(t, "decrypt --cse-keyring both.yaml sealed"))
	t.Setenv("COFFER_CSE_ORIGIN", "authentic")
	code, out, errOut := runIn(t, "decrypt", "--cse-keyring", "both.yaml", "sealed")
	require.Equal(t, exitFailure, code)
	require.Empty(t, out)
	require.Contains(t, errOut, "raw-rsa lab/bob: unwrap a data key: ")
	require.Contains(t, errOut, "whoever has its public key can write under it")
	code, _, errOut = runIn(t, "decrypt", "--cse-keyring", "bob.yaml", "sealed")
	require.Equal(t, exitUsage, code)
	require.Contains(t, errOut, "cse-origin authentic would not read what the keyring writes")
}
