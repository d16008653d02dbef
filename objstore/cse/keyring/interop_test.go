package keyring_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/storetest"
)

// The official SDK for Python, in the version of the environment that
// COFFER_ESDK_PYTHON is the interpreter of (pip install
// aws-encryption-sdk[MPL]), reads what is written here and the other way
// round: all suites, raw keyrings and paddings, and sizes around full frames.
func TestInteropWithPython(t *testing.T) {
	python := os.Getenv("COFFER_ESDK_PYTHON")
	if python == "" {
		storetest.Skip(t, "COFFER_ESDK_PYTHON names no Python with aws-encryption-sdk[MPL]")
	}
	const pemFile = "testdata/private.pem"
	file, err := os.ReadFile(pemFile)
	require.NoError(t, err)
	private, err := keyring.ParsePrivateKey(file, nil)
	require.NoError(t, err)
	keys := map[string]keyring.Key{
		"aes128": rawAES(t, "aes128", 16, 1), "aes192": rawAES(t, "aes192", 24, 1), "aes256": rawAES(t, "aes256", 32, 1),
	}
	for _, p := range []keyring.Padding{keyring.PKCS1, keyring.OAEPSHA1, keyring.OAEPSHA256, keyring.OAEPSHA384, keyring.OAEPSHA512} {
		keys[string(p)] = rawRSA(t, "rsa", p, nil, private)
	}
	plaintext := make([]byte, 200_000)
	for i := range plaintext {
		plaintext[i] = byte(i % 251)
	}

	ours, theirs := t.TempDir(), t.TempDir()
	written := 0
	for name, k := range keys {
		if k.CanWrap() != nil {
			continue
		}
		for _, frame := range []int64{512, 65536} {
			for i, size := range []int64{0, 1, frame - 1, frame, frame + 1, 3*frame + 7} {
				member := keyring.Member{Key: k}
				if i%2 == 1 { // padded by a data key
					member.Key = counted{k, 0, nil}
				}
				msg := encryptFrames(t, ringOf(t, member), frame, plaintext[:size])
				require.NoError(t, os.WriteFile(filepath.Join(ours, fmt.Sprintf("%s.0478.%d.%d", name, frame, size)), msg, 0o600))
				written++
			}
		}
	}
	out, err := exec.Command(python, "testdata/esdk.py", ours, theirs, pemFile).CombinedOutput()
	require.NoError(t, err, "%s", out)
	names, err := filepath.Glob(filepath.Join(theirs, "*"))
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintln(written, len(names)), string(out))
	require.Len(t, names, 11*(3*3*6+5*2*2), "suites, AES and RSA keys, frame lengths, sizes")
	for _, name := range names {
		msg, err := os.ReadFile(name)
		require.NoError(t, err)
		var suite, frame, size int
		by, numbers, _ := strings.Cut(filepath.Base(name), ".")
		_, err = fmt.Sscanf(numbers, "%x.%d.%d", &suite, &frame, &size)
		require.NoError(t, err, name)
		got, _, err := decrypt(ringOf(t, keyring.Member{Key: keys[by], DecryptOnly: true}), msg, message.Context{})
		require.NoError(t, err, name)
		require.True(t, bytes.Equal(plaintext[:size], got), name)
	}
	t.Logf("%d messages read by Python, %d of Python's read", written, len(names))
}
