package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

func TestCreateEncryptedBucket(t *testing.T) {
	endpoint := func(dialect string) string {
		srv, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), Dialect: dialect, AccessKeyID: "key", SecretAccessKey: "secret"})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, srv.Close()) })
		require.NoError(t, srv.Listen("127.0.0.1:0"))
		return srv.Endpoint()
	}
	honest, liar := endpoint("aws"), endpoint("liar")
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "HOME": t.TempDir()} {
		t.Setenv(k, v)
	}
	plain := writeConfig(t, "sse: none\nallow-unencrypted: true\nencryption:\n  - match: \"rule-*\"\n    sse: none\n    allow-unencrypted: true\n")
	for _, c := range []struct {
		name     string
		endpoint string
		args     []string
		code     int
		want     string
	}{
		{"new", honest, []string{"s3://new-bucket"}, exitOK, "create-encrypted-bucket Success.\n"},
		{"taken", honest, []string{"s3://new-bucket"}, exitFailure, "exists already and was not touched"},
		{"no valid name", honest, []string{"s3://No_Such_Name"}, exitUsage, "No_Such_Name"},
		{"no bucket", honest, []string{"new-bucket"}, exitUsage, "s3://"},
		{"a store that cannot", liar, []string{"s3://plain"}, exitUnencrypted, "no such bucket"},
		{"not even if it were allowed", liar, []string{"--allow-unencrypted", "s3://plain"}, exitUnencrypted, "no such bucket"},
		{"not even by the file", liar, []string{"--config", plain, "s3://plain"}, exitUnencrypted, "no such bucket"},
		{"not even by a rule", liar, []string{"--config", plain, "s3://rule-plain"}, exitUnencrypted, "no such bucket"},
		{"none is no mode", honest, []string{"--sse", "none", "s3://encrypted-all-the-same"}, exitOK, "create-encrypted-bucket Success.\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errOut := runIn(t, append([]string{"create-encrypted-bucket", "--endpoint-url", c.endpoint}, c.args...)...)
			require.Equal(t, c.code, code, errOut)
			require.Contains(t, out+errOut, c.want)
			require.Equal(t, c.code == exitOK, out == "create-encrypted-bucket Success.\n", out)
		})
	}
}

func TestCreateEncryptedBucketByName(t *testing.T) {
	args, err := commandLine([]string{filepath.Join(string(os.PathSeparator), "usr", "bin", "create-encrypted-bucket"), "--endpoint-url", "http://x", "s3://b"})
	require.NoError(t, err)
	require.Equal(t, []string{"create-encrypted-bucket", "--endpoint-url", "http://x", "s3://b"}, args)
}
