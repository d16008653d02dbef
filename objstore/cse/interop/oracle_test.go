package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
	"coffer/objstore/storetest"
)

// oracle is an official library behind the protocol of doc.go.
type oracle struct {
	name string
	// command is the program and its arguments, given where .ci/setup puts it.
	command func(dir string) []string
	// fullFinal: where the plaintext is a multiple of a frame's, the last full
	// frame is the final one. The others write an empty final frame then.
	fullFinal bool
	// pinned: signatures are made until they have the usual length.
	pinned bool
	// blocks: the library can write a message of a single block.
	blocks bool
	// takesMore: bytes after the end of a message of the suite are not refused.
	takesMore func(s message.Suite) bool

	mu      sync.Mutex
	cmd     *exec.Cmd // guarded by mu: nil until first used
	in      io.WriteCloser
	out     *bufio.Reader
	stderr  bytes.Buffer // only after cmd has ended
	library string
}

var oracles = []*oracle{
	{name: "go", fullFinal: true, pinned: true,
		takesMore: func(message.Suite) bool { return false },
		command:   func(dir string) []string { return []string{filepath.Join(dir, "go", "oracle")} }},
	{name: "js",
		takesMore: func(s message.Suite) bool { return !s.Signed() },
		command:   func(dir string) []string { return []string{"node", filepath.Join(dir, "js", "oracle.mjs")} }},
	{name: "python", pinned: true, blocks: true,
		takesMore: func(message.Suite) bool { return true },
		command: func(dir string) []string {
			return []string{filepath.Join(dir, "python", "bin", "python"), filepath.Join(dir, "python", "oracle.py")}
		}},
}

type request struct {
	Op       string            `json:"op"`
	In       string            `json:"in,omitempty"`
	Out      string            `json:"out,omitempty"`
	Suite    string            `json:"suite,omitempty"`
	Frame    int64             `json:"frame,omitempty"`
	Block    bool              `json:"block,omitempty"`
	Policy   string            `json:"policy,omitempty"`
	Context  map[string]string `json:"context,omitempty"`
	Keyrings []rawKey          `json:"keyrings,omitempty"`
}

type answer struct {
	Error, Library, Suite string
	Context               map[string]string
}

func TestMain(m *testing.M) {
	status := m.Run()
	for _, o := range oracles {
		o.stop()
	}
	os.Exit(status)
}

// withOracles runs a test with each library. One that is not installed is told
// about, or is a failure where COFFER_REQUIRE_ORACLES=1.
func withOracles(t *testing.T, test func(t *testing.T, o *oracle)) {
	for _, o := range oracles {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			o.start(t)
			test(t, o)
		})
	}
}

func (o *oracle) start(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cmd != nil {
		return
	}
	command := o.command(filepath.Join(os.Getenv("COFFER_TOOLS_DIR"), "oracles"))
	program, err := exec.LookPath(command[0])
	if err == nil {
		_, err = os.Stat(command[len(command)-1])
	}
	if err != nil {
		const text = "the AWS Encryption SDK for %s is not installed: .ci/setup oracles does that, and COFFER_TOOLS_DIR must be what .ci/setup --print-dir prints (%v)"
		if os.Getenv("COFFER_REQUIRE_ORACLES") == "1" {
			t.Fatalf(text, o.name, err)
		}
		storetest.Skip(t, text, o.name, err)
	}
	cmd := exec.Command(program, command[1:]...)
	// Nothing of the caller's: neither credentials nor settings.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "TMPDIR=" + os.TempDir(), "LC_ALL=C.UTF-8"}
	cmd.Stderr = &o.stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	o.cmd, o.in, o.out = cmd, in, bufio.NewReader(out)
	a, err := o.exchange(request{Op: "version"})
	require.NoError(t, err)
	o.library = a.Library
}

func (o *oracle) stop() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cmd == nil {
		return
	}
	o.in.Close()
	_ = o.cmd.Wait()
}

// exchange sends a request and waits for its answer. The caller holds o.mu.
func (o *oracle) exchange(q request) (answer, error) {
	line, err := json.Marshal(q)
	if err != nil {
		return answer{}, err
	}
	// An oracle that does not answer would hold up the run for an hour.
	timer := time.AfterFunc(2*time.Minute, func() { _ = o.cmd.Process.Kill() })
	defer timer.Stop()
	if _, err = o.in.Write(append(line, '\n')); err == nil {
		line, err = o.out.ReadBytes('\n')
	}
	if err != nil {
		_ = o.cmd.Wait()
		return answer{}, fmt.Errorf("oracle %s is gone: %w\n%s", o.name, err, o.stderr.Bytes())
	}
	var a answer
	return a, json.Unmarshal(line, &a)
}

// do has the oracle make output of input. refused is its own word.
func (o *oracle) do(t *testing.T, q request, input []byte) (output []byte, a answer, refused error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "coffer-oracle-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	q.In, q.Out = filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(q.In, input, 0o600))
	o.mu.Lock()
	a, err = o.exchange(q)
	o.mu.Unlock()
	require.NoError(t, err)
	if a.Error != "" {
		return nil, a, fmt.Errorf("%s: %s", o.library, a.Error)
	}
	output, err = os.ReadFile(q.Out)
	require.NoError(t, err)
	return output, a, nil
}

// encrypt returns a message of the library's.
func (o *oracle) encrypt(t *testing.T, q request, plain []byte) []byte {
	t.Helper()
	q.Op = "encrypt"
	msg, _, err := o.do(t, q, plain)
	require.NoError(t, err)
	return msg
}

// decrypt returns the plaintext with the default policy, which refuses suites
// that do not commit to the key.
func (o *oracle) decrypt(t *testing.T, msg []byte, with ...rawKey) ([]byte, error) {
	t.Helper()
	plain, _, err := o.do(t, request{Op: "decrypt", Keyrings: with}, msg)
	return plain, err
}
