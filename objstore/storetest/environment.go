package storetest

import (
	"strings"
	"testing"
)

// SetEnv gives the test's own process the environment of a client: env, each
// NAME=VALUE, as the Env of a server returns it, and nothing of the developer's
// own account.
func SetEnv(t testing.TB, env []string) {
	t.Helper()
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}
