package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"coffer/objstore"
)

// TestMain lets the test binary be the program, and the detached process:
// startDetached runs its own binary again. The environment names which.
func TestMain(m *testing.M) {
	if os.Getenv("COFFER_TEST_MAIN") != "" {
		main()
	}
	if how := os.Getenv("COFFER_TEST_DAEMON"); how != "" {
		os.Exit(actAsDaemon(how))
	}
	os.Exit(m.Run())
}

func actAsDaemon(how string) int {
	det, err := detachedFromEnv()
	if err != nil || det == nil || os.Getenv(detachedEnv) != "" {
		fmt.Fprintln(os.Stderr, "not detached:", err)
		return 9
	}
	switch how {
	case "ready":
		if sid, err := unix.Getsid(0); err != nil || sid != os.Getpid() {
			return 9
		}
		fmt.Fprintln(os.Stderr, "a warning before")
		if redirectStdio(-1) != nil || det.report(nil) != nil {
			return 9
		}
		fmt.Fprintln(os.Stderr, "lost")
	case "refused":
		_ = det.report(&objstore.Error{Op: "open bucket", Key: "b", Kind: objstore.Permission})
	case "dies":
		return 3
	case "hangs":
		time.Sleep(time.Minute)
	case "owned":
		stop, _, release := watchSignals(det)
		defer release()
		if redirectStdio(-1) != nil || det.report(nil) != nil {
			return 9
		}
		<-stop
		_ = os.WriteFile(os.Getenv("COFFER_TEST_FILE"), []byte("stopped"), 0o600)
	}
	return 0
}

func TestDetachedReports(t *testing.T) {
	start := func(t *testing.T, how string) (string, error) {
		t.Setenv("COFFER_TEST_DAEMON", how)
		stderr, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
		require.NoError(t, err)
		defer stderr.Close()
		owner, err := startDetached(t.Context(), nil, stderr, false)
		require.Nil(t, owner)
		// Whatever the daemon has to say after its readiness goes elsewhere.
		time.Sleep(50 * time.Millisecond)
		said, readErr := os.ReadFile(stderr.Name())
		require.NoError(t, readErr)
		return string(said), err
	}
	t.Run("ready", func(t *testing.T) {
		said, err := start(t, "ready")
		require.NoError(t, err)
		require.Equal(t, "a warning before\n", said)
	})
	t.Run("refused", func(t *testing.T) {
		_, err := start(t, "refused")
		require.EqualError(t, err, `open bucket "b": permission denied`)
		require.Equal(t, exitPermission, exitCode(err), "the code comes along")
	})
	t.Run("dies", func(t *testing.T) {
		_, err := start(t, "dies")
		require.ErrorContains(t, err, "exit status 3")
	})
}

func TestDetachedInterrupted(t *testing.T) {
	t.Setenv("COFFER_TEST_DAEMON", "hangs")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := startDetached(ctx, nil, os.Stderr, false)
	require.ErrorContains(t, err, "interrupted")
}

func TestDetachedEndsWithItsOwner(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	t.Setenv("COFFER_TEST_DAEMON", "owned")
	t.Setenv("COFFER_TEST_FILE", file)
	owner, err := startDetached(t.Context(), nil, os.Stderr, true)
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond)
	require.NoFileExists(t, file, "it serves as long as its owner lives")
	require.NoError(t, owner.Close())
	require.Eventually(t, func() bool { _, err := os.Stat(file); return err == nil }, 5*time.Second, 10*time.Millisecond)
}

func TestDetachedEnvIsChecked(t *testing.T) {
	for _, v := range []string{"", "x", "1", "3,y", "-4"} {
		t.Setenv(detachedEnv, v)
		_, err := detachedFromEnv()
		require.Error(t, err, v)
	}
	require.NoError(t, os.Unsetenv(detachedEnv))
	det, err := detachedFromEnv()
	require.NoError(t, err)
	require.Nil(t, det)
}

func TestLeaveWorkingDirKeepsCredentialFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "creds")
	t.Setenv("AWS_CONFIG_FILE", "/abs/config")
	wd, err := os.Getwd()
	require.NoError(t, err)
	require.NoError(t, leaveWorkingDir())
	require.Equal(t, wd+"/creds", os.Getenv("AWS_SHARED_CREDENTIALS_FILE"))
	require.Equal(t, "/abs/config", os.Getenv("AWS_CONFIG_FILE"))
	root, err := os.Getwd()
	require.NoError(t, err)
	require.Equal(t, "/", root)
}
