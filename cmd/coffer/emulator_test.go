package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestEmulatorPrints runs the command until SIGTERM and looks at what it
// prints for a shell.
func TestEmulatorPrints(t *testing.T) {
	t.Setenv("COFFER_CONFIG", os.DevNull)
	dir := filepath.Join(t.TempDir(), "store")
	out, write := io.Pipe()
	var errOut bytes.Buffer
	code := make(chan int, 1)
	go func() {
		n := run([]string{"coffer", "emulator", "--dir", dir, "--tls", "--lossy-v2", "--dialect", "scality"}, strings.NewReader(""), write, &errOut)
		write.Close()
		code <- n
	}()
	env := map[string]string{}
	signalled := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		require.True(t, ok, lines.Text())
		env[name] = value
		if !signalled {
			// Whoever has a line has the command waiting for signals.
			require.NoError(t, unix.Kill(os.Getpid(), unix.SIGTERM))
			signalled = true
		}
	}
	require.Equal(t, 0, <-code, errOut.String())
	require.Regexp(t, `^https://127\.0\.0\.1:\d+$`, env["AWS_ENDPOINT_URL"])
	require.Equal(t, env["AWS_ENDPOINT_URL"], env["AWS_ENDPOINT_URL_KMS"])
	pem, err := os.ReadFile(env["AWS_CA_BUNDLE"])
	require.NoError(t, err)
	require.True(t, x509.NewCertPool().AppendCertsFromPEM(pem))
}
