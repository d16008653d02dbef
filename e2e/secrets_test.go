package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"
)

// secrets are the keys of a test, in all forms in which they could show.
type secrets map[string]string // form to what it is

func (s secrets) add(what, secret string) {
	raw := []byte(secret)
	inner := func(quoted string) string { return strings.Trim(quoted, `"`) }
	escaped, _ := json.Marshal(secret) // never fails
	var line strings.Builder           // as package slog writes JSON, which is not how encoding/json does
	slog.New(slog.NewJSONHandler(&line, nil)).Info("", "k", secret)
	_, logged, _ := strings.Cut(strings.TrimSpace(line.String()), `"k":"`)
	std, url := base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw)
	for form, text := range map[string]string{
		"": secret, "quoted": inner(strconv.Quote(secret)), "in JSON": inner(string(escaped)), "in a JSON log": strings.TrimSuffix(logged, `"}`),
		"in hex": hex.EncodeToString(raw), "in capital hex": fmt.Sprintf("%X", raw),
		"in base64": strings.TrimRight(std, "="), "in base64 of URLs": strings.TrimRight(url, "="),
		"in numbers": strings.Trim(fmt.Sprint(raw), "[]"), "in Go": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", raw), "[]byte{"), "}"),
	} {
		s[text] = strings.TrimSpace(what + " " + form)
	}
}

// wantNone fails the test when a text shows a secret.
func (s secrets) wantNone(t *testing.T, where, text string) {
	t.Helper()
	for form, what := range s {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the %s", where, what)
		}
	}
}

// TestNoSecretIsShown looks wherever a key could show: arguments and
// environments of all processes, output of commands that succeed and that
// fail, the log with every request of the SDK, the answers of the control
// socket, and whatever the daemon leaves in files; and at who may talk to it.
// That no core file has them is TestNoCoreFile's.
func TestNoSecretIsShown(t *testing.T) {
	s, err := emulator.New(emulator.Config{Dir: filepath.Join(storetest.DataDir(t), "emulator"), AllowSSECOverHTTP: true})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	must(t, s.Listen("127.0.0.1:0"))

	known := secrets{}
	known.add("secret access key", envOf(s.Env(), "AWS_SECRET_ACCESS_KEY"))
	keys := make([]string, 3) // the third is not configured at first
	for i := range keys {     // the second is for rescue as well
		keys[i], _ = customerKeyFile(t)
		text, err := os.ReadFile(keys[i])
		must(t, err)
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		must(t, err)
		known.add("customer key "+strconv.Itoa(i), string(raw))
	}
	ring := keyringFile(t)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(ring), "aes"))
	must(t, err)
	raw, err := hex.DecodeString(string(text))
	must(t, err)
	known.add("key of the keyring", string(raw))
	text, err = os.ReadFile(filepath.Join(filepath.Dir(ring), "private.pem"))
	must(t, err)
	known.add("private key of the keyring", strings.Split(string(text), "\n")[5]) // some of it
	// Credentials from a file, so that no environment needs to have them.
	dir := t.TempDir()
	file := filepath.Join(dir, "credentials")
	must(t, os.WriteFile(file, []byte(fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
		envOf(s.Env(), "AWS_ACCESS_KEY_ID"), envOf(s.Env(), "AWS_SECRET_ACCESS_KEY"))), 0o600))
	logFile := filepath.Join(dir, "log")
	env := append(baseEnv(t), "AWS_ENDPOINT_URL="+s.Endpoint(), "AWS_REGION=us-east-1", "AWS_SHARED_CREDENTIALS_FILE="+file, "AWS_CONFIG_FILE=/nonexistent")
	flags := []string{"--cse-keyring", ring, "--sse", "customer", "--sse-customer-key-file", keys[0], "--sse-customer-key-file", keys[1], "--log-level", "debug"}

	texts := map[string]string{}
	needFUSE(t)
	mnt := filepath.Join(dir, "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	code, out, errs := coffers(t, env, append(append([]string{"mount"}, flags...), "--rescue-key-file", keys[1], "--log-file", logFile, mnt)...)
	if code != 0 {
		t.Fatalf("mount: %d, %s", code, errs)
	}
	texts["mount"] = out + errs
	t.Cleanup(func() {
		if mounted(mnt) {
			exec.Command("fusermount3", "-u", "-z", mnt).Run()
		}
	})
	path := func(name string) string { return filepath.Join(mnt, "bucket", name) }
	must(t, os.Mkdir(filepath.Join(mnt, "bucket"), 0o755))
	must(t, os.WriteFile(path("file"), random(t, 9<<20), 0o644))
	must(t, os.Chmod(path("file"), 0o600))
	must(t, os.Rename(path("file"), path("renamed")))
	_, err = os.ReadFile(path("renamed"))
	must(t, err)
	s.Inject(emulator.Fault{Verb: "PutObject", KeyPattern: "f", Code: "AccessDenied"})
	if err := os.WriteFile(path("f"), []byte("x"), 0o644); err == nil {
		t.Error("a refused write succeeded")
	}
	s.ClearFaults()

	command := func(args ...string) {
		t.Helper()
		_, out, errs := coffers(t, env, args...)
		if out+errs == "" {
			t.Errorf("coffer %q said nothing", args)
		}
		texts[fmt.Sprintf("coffer %q", args)] = out + errs
	}
	command("status", mnt)
	command("status", "--json", mnt)
	command("rescue", "list")
	command("rescue", "list", "--json", "--rescue-key-file", keys[1])
	command("rescue", "commit", "--rescue-key-file", keys[1], "absent")
	command(append([]string{"check", "s3://bucket", "--json"}, flags...)...)
	command(append([]string{"check", "s3://bucket"}, flags...)...)
	command(append([]string{"mb", "s3://bucket-2"}, flags...)...)
	command(append([]string{"mb", "s3://bucket-2"}, flags...)...) // exists
	command(append([]string{"run", "s3://bucket"}, append(flags, "--", "sh", "-c", "env; cat /proc/self/environ /proc/$PPID/cmdline")...)...)
	bad := filepath.Join(dir, "bad")
	text, err = os.ReadFile(keys[2])
	must(t, err)
	must(t, os.WriteFile(bad, append(text, text...), 0o600)) // no key, though it holds one
	command("mount", "--sse-customer-key-file", bad, mnt)
	must(t, os.Chmod(keys[2], 0o644))
	command("mount", "--sse-customer-key-file", keys[2], mnt)
	must(t, os.Chmod(keys[2], 0o600))
	command("check", "s3://bucket", "--sse", "customer", "--sse-customer-key-file", keys[2], "--log-level", "debug") // another key

	ps, err := exec.Command("ps", "-e", "-ww", "-o", "args").Output()
	must(t, err)
	texts["ps"] = string(ps)
	daemons := 0
	for _, proc := range processes(t, mnt) {
		daemons++
		environ, err := os.ReadFile("/proc/" + proc + "/environ")
		if os.Getuid() == 0 { // a process that leaves no core shows its own user nothing
			must(t, err)
		}
		texts["environ of "+proc] = string(environ)
	}
	if daemons == 0 {
		t.Error("the daemon was not found among the processes")
	}
	log, err := os.ReadFile(logFile)
	must(t, err)
	texts["the log"] = string(log)
	for _, line := range []string{"AccessDenied", "level=DEBUG"} {
		if !strings.Contains(string(log), line) {
			t.Errorf("no %s in the log: too little was looked at", line)
		}
	}
	if st, err := os.Stat(logFile); err != nil || st.Mode().Perm()&0o077 != 0 {
		t.Errorf("the log can be read by others: %v, %v", st.Mode(), err)
	}
	sockets := 0
	must(t, filepath.WalkDir(envOf(env, "XDG_RUNTIME_DIR"), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.Type() == fs.ModeSocket {
			sockets++
			if perm := info.Mode().Perm(); perm != 0o600 {
				t.Errorf("control socket %s has mode %o", p, perm)
			}
		}
		if d.Type().IsRegular() {
			data, err := os.ReadFile(p)
			must(t, err)
			texts[p] = string(data)
		}
		return nil
	}))
	if sockets != 1 {
		t.Errorf("%d control sockets, want 1", sockets)
	}
	if code, _, errs := coffers(t, env, "umount", mnt); code != 0 {
		t.Errorf("umount: %d, %s", code, errs)
	}
	for where, text := range texts {
		known.wantNone(t, where, text)
	}
}

// processes returns the ids of all processes that have arg among their
// arguments.
func processes(t *testing.T, arg string) []string {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	var ids []string
	for _, d := range dirs {
		args, err := os.ReadFile(filepath.Join(d, "cmdline"))
		if err == nil && strings.Contains(string(args), arg) {
			ids = append(ids, filepath.Base(d))
		}
	}
	return ids
}

// TestSecretsAreRecognised: a key that is logged in any of the usual ways would
// be found.
func TestSecretsAreRecognised(t *testing.T) {
	key := random(t, 32)
	known := secrets{}
	known.add("key", string(key))
	var text, asJSON strings.Builder
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&text, nil)), slog.New(slog.NewJSONHandler(&asJSON, nil))} {
		log.Info("raw", "k", string(key))
		log.Info("bytes", "k", key)
		log.Info("array", "k", [32]byte(key))
	}
	lines := slices.Concat(slices.Collect(strings.Lines(text.String())), slices.Collect(strings.Lines(asJSON.String())), []string{
		fmt.Sprintf("%v", key), fmt.Sprintf("%#v", key), fmt.Sprintf("%x", key), fmt.Sprintf("%X", key), fmt.Sprintf("%q", key), string(key),
		base64.StdEncoding.EncodeToString(key), base64.RawStdEncoding.EncodeToString(key), base64.URLEncoding.EncodeToString(key),
	})
	for _, line := range lines {
		found := false
		for form := range known {
			found = found || strings.Contains(line, form)
		}
		if !found && !strings.Contains(line, "[") { // an array in JSON has commas and no blanks
			t.Errorf("not recognised: %q", line)
		}
	}
}
