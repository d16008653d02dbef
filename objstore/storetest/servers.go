package storetest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is an S3 server that a test can talk to. Its fields are what a client
// has to be configured with; they are fixed once it is returned.
type Server struct {
	// Name says what it is: "minio", "minio-tls", "versitygw".
	Name string
	// Endpoint is scheme, address and port, without a trailing slash.
	Endpoint string
	// AccessKeyID and SecretAccessKey are the root user's.
	AccessKeyID, SecretAccessKey string
	// Region is what requests have to be signed for.
	Region string
	// CAFile is the PEM certificate to trust, "" for a server without TLS.
	CAFile string
	// Dir is where the server keeps its data, "" when it is not a directory
	// of this machine.
	Dir string

	proc *process
}

// Env returns the settings as NAME=VALUE, for the environment of a client
// that knows the variables of the AWS tools.
func (s *Server) Env() []string {
	env := []string{
		"AWS_ENDPOINT_URL=" + s.Endpoint,
		"AWS_ACCESS_KEY_ID=" + s.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretAccessKey,
		"AWS_REGION=" + s.Region,
	}
	if s.CAFile != "" {
		env = append(env, "AWS_CA_BUNDLE="+s.CAFile)
	}
	return env
}

// PID returns the process id of a spawned server, 0 for a proxy.
func (s *Server) PID() int {
	if s.proc == nil {
		return 0
	}
	return s.proc.cmd.Process.Pid
}

// Output returns the last 64 KiB of what a spawned server has printed.
func (s *Server) Output() string {
	if s.proc == nil {
		return ""
	}
	return s.proc.out.String()
}

// The credentials of every spawned server; they guard nothing but test data
// on loopback.
const (
	rootUser   = "coffertestkey"
	rootSecret = "coffertestsecret"
	region     = "us-east-1"
)

// minioKMS is MinIO's built-in single-key KMS: it needs 32 bytes under a name,
// and turns on SSE-S3 and SSE-KMS.
var minioKMS = "MINIO_KMS_SECRET_KEY=demo-key:" +
	base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// StartMinIO spawns MinIO over plain http, with its built-in KMS so that SSE-S3
// and SSE-KMS work. It is killed, and its data removed, when the test ends.
func StartMinIO(t testing.TB) *Server {
	t.Helper()
	return startMinIO(t, false)
}

// StartMinIOTLS is [StartMinIO] over https, which MinIO demands for SSE-C. The
// certificate is made on the spot; Server.CAFile is what to trust.
func StartMinIOTLS(t testing.TB) *Server {
	t.Helper()
	return startMinIO(t, true)
}

func startMinIO(t testing.TB, withTLS bool) *Server {
	t.Helper()
	bin := FindTool(t, "minio")
	dir := DataDir(t)
	certs := filepath.Join(dir, "certs")
	data := filepath.Join(dir, "data")
	for _, d := range []string{certs, data} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{Name: "minio", AccessKeyID: rootUser, SecretAccessKey: rootSecret, Region: region, Dir: data}
	scheme := "http"
	if withTLS {
		s.Name, scheme = "minio-tls", "https"
		if err := writeCertificate(certs); err != nil {
			t.Fatalf("certificate for %s: %v", s.Name, err)
		}
		s.CAFile = filepath.Join(certs, "public.crt")
	}
	start(t, s, scheme, "/minio/health/ready", func(addr string) *exec.Cmd {
		cmd := exec.Command(bin, "server", "--quiet", "--address", addr, "--certs-dir", certs, data)
		cmd.Env = append(toolEnv(dir), "MINIO_ROOT_USER="+rootUser, "MINIO_ROOT_PASSWORD="+rootSecret,
			minioKMS, "MINIO_BROWSER=off", "MINIO_UPDATE=off")
		return cmd
	})
	return s
}

// StartVersityGW spawns versitygw over its posix backend, plain http. It
// ignores server-side encryption and answers 200: the server to prove refusals
// with. It is killed, and its data removed, when the test ends.
func StartVersityGW(t testing.TB) *Server {
	t.Helper()
	bin := FindTool(t, "versitygw")
	dir := DataDir(t)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Server{Name: "versitygw", AccessKeyID: rootUser, SecretAccessKey: rootSecret, Region: region, Dir: data}
	start(t, s, "http", "/", func(addr string) *exec.Cmd {
		// keep-alive is off by default, which would cost a connection a request.
		cmd := exec.Command(bin, "--quiet", "--keep-alive", "--port", addr, "--region", region,
			"posix", "--io-buffer-size", "131072", data)
		cmd.Env = append(toolEnv(dir), "ROOT_ACCESS_KEY="+rootUser, "ROOT_SECRET_KEY="+rootSecret)
		return cmd
	})
	return s
}

// FindTool returns the path of a test server's binary: in $COFFER_TOOLS_DIR,
// else in coffer-tools/bin of the user's cache directory, where make puts it.
// Without it the test is skipped, with a line that says so, and fails instead
// where COFFER_REQUIRE_SERVERS=1, as make test sets it.
func FindTool(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("COFFER_TOOLS_DIR")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("no place to look for %s: set COFFER_TOOLS_DIR (%v)", name, err)
		}
		dir = filepath.Join(cache, "coffer-tools", "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		Missing(t, "the test server %s is not installed (%v): run make test once, or set COFFER_TOOLS_DIR", name, err)
	}
	return path
}

// Missing ends a test for want of something on this machine: as a skip, or as
// a failure where COFFER_REQUIRE_SERVERS=1 promises that all of it is there.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("COFFER_REQUIRE_SERVERS") == "1" {
		t.Fatalf(format, args...)
	}
	Skip(t, format, args...)
}

// Skip ends a test that cannot run here, so that it is seen: go test hides
// the reason, and all output of a package that passes. The line goes to stderr
// and to the file that COFFER_SKIPPED names, which "make test" prints at last.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf("SKIPPED, NOT TESTED: %s: %s\n", t.Name(), fmt.Sprintf(format, args...))
	fmt.Fprint(os.Stderr, line)
	if name := os.Getenv("COFFER_SKIPPED"); name != "" {
		if f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
			_, _ = f.WriteString(line) // stderr has it too
			f.Close()
		}
	}
	t.Skipf(format, args...)
}

// toolEnv is the environment of a spawned server: nothing of the caller's, so
// that neither its credentials nor its settings leak in.
func toolEnv(home string) []string {
	return []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + home}
}

// start runs the command until it serves, and fills in the endpoint. A free
// port can be taken by somebody else between its choice and the server's
// listen, so a server that exits at once gets another two tries.
func start(t testing.TB, s *Server, scheme, readyPath string, command func(addr string) *exec.Cmd) {
	t.Helper()
	client := &http.Client{Timeout: 2 * time.Second, Transport: readyTransport(t, s.CAFile)}
	defer client.CloseIdleConnections()
	for try := 1; ; try++ {
		addr := freeAddr(t)
		p, err := spawn(command(addr))
		if err != nil {
			t.Fatalf("start %s: %v", s.Name, err)
		}
		err = waitReady(client, scheme+"://"+addr+readyPath, p)
		if err == nil {
			s.Endpoint, s.proc = scheme+"://"+addr, p
			t.Cleanup(func() {
				p.kill()
				if t.Failed() {
					t.Logf("output of %s:\n%s", s.Name, p.out.String())
				}
			})
			return
		}
		p.kill()
		if try == 3 {
			t.Fatalf("start %s: %v; output:\n%s", s.Name, err, p.out.String())
		}
	}
}

// readyTransport trusts caFile when there is one.
func readyTransport(t testing.TB, caFile string) http.RoundTripper {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			t.Fatalf("no certificate in %s", caFile)
		}
		tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return tr
}

var errExited = errors.New("the server has exited")

// waitReady polls url until it gives 200, or any answer at all where the path
// is "/" (an S3 root answers 403 to an unsigned request).
func waitReady(client *http.Client, url string, p *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var last error
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK || strings.HasSuffix(url, "/") && strings.Count(url, "/") == 3 {
				return nil
			}
			err = fmt.Errorf("GET %s: %s", url, resp.Status)
		}
		last = err
		select {
		case <-p.done:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("not ready within 30 s: %w", last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// freeAddr returns a loopback address with a port that was free just now.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a running child whose goroutine waits for it; kill ends both.
type process struct {
	cmd  *exec.Cmd
	out  tail
	done chan struct{} // closed once the child is reaped
}

// spawn starts cmd such that the kernel kills it when this process dies, in
// whatever way: no test may leave a server behind. The kernel ties that
// promise to the life of the *thread* that forked, and Go ends idle threads
// at will; so one goroutine keeps its thread locked from the fork until the
// child has been reaped.
func spawn(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the exit status of a killed server says nothing
			close(p.done)
		}
	}()
	return p, <-started
}

// kill ends the child, by its process id, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only where the child is gone already
	<-p.done
}

// tail is a writer that keeps the last tailBytes written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 64 << 10

// Write appends p and never fails.
func (o *tail) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, p...)
	if over := len(o.buf) - tailBytes; over > 0 {
		o.buf = append(o.buf[:0], o.buf[over:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (o *tail) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.buf)
}
