package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/storetest"
)

// peer is a program that mounts a bucket named "bench" in the foreground.
type peer struct {
	name string
	// command mounts the bucket at r.dir; r.home is where it may keep files.
	command func(r *peerRun) *exec.Cmd
	// durable: what fsync or close has returned for is in the store.
	durable bool
}

var (
	cofferPeer = peer{"Coffer", func(r *peerRun) *exec.Cmd {
		args := append([]string{"mount", "-f", "--allow-unencrypted"}, r.args...)
		cmd := exec.Command(plainCoffer(r.t), append(args, "s3://bench", r.dir)...)
		cmd.Env = append(baseEnv(r.t), r.env...)
		return cmd
	}, true}
	s3fsPeer = peer{"s3fs", func(r *peerRun) *exec.Cmd {
		passwd := filepath.Join(r.home, "passwd")
		must(r.t, os.WriteFile(passwd, []byte(envOf(r.env, "AWS_ACCESS_KEY_ID")+":"+envOf(r.env, "AWS_SECRET_ACCESS_KEY")), 0o600))
		args := []string{"bench", r.dir, "-f", "-o", "use_path_request_style,url=" + envOf(r.env, "AWS_ENDPOINT_URL") + ",passwd_file=" + passwd}
		if envOf(r.env, "AWS_CA_BUNDLE") != "" { // it has no option for a certificate
			args = append(args, "-o", "no_check_certificate,ssl_verify_hostname=0")
		}
		return exec.Command("s3fs", append(args, r.args...)...)
	}, true}
	rcloneOff  = peer{"rclone", rclone("off"), false} // its fsync does nothing, and close returns before the upload
	rcloneFull = peer{"rclone, vfs full", rclone("full"), false}
	tigrisPeer = peer{"tigrisfs", func(r *peerRun) *exec.Cmd {
		args := append([]string{"-f", "--endpoint", envOf(r.env, "AWS_ENDPOINT_URL"), "--no-tigris-prefetch"}, r.args...)
		cmd := exec.Command(storetest.FindTool(r.t, "tigrisfs"), append(args, "bench", r.dir)...)
		cmd.Env = append(append(baseEnv(r.t), r.env...), "SSL_CERT_FILE="+envOf(r.env, "AWS_CA_BUNDLE"))
		return cmd
	}, false}
)

func rclone(mode string) func(*peerRun) *exec.Cmd {
	return func(r *peerRun) *exec.Cmd {
		args := append([]string{"mount", "store:bench", r.dir, "--vfs-cache-mode", mode, "--cache-dir", filepath.Join(r.home, "cache"),
			"--config", filepath.Join(r.home, "none")}, r.args...)
		cmd := exec.Command("rclone", args...)
		cmd.Env = append(baseEnv(r.t), "RCLONE_CONFIG_STORE_TYPE=s3", "RCLONE_CONFIG_STORE_PROVIDER=Other", "RCLONE_CONFIG_STORE_ENDPOINT="+envOf(r.env, "AWS_ENDPOINT_URL"),
			"RCLONE_CONFIG_STORE_ACCESS_KEY_ID="+envOf(r.env, "AWS_ACCESS_KEY_ID"), "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY="+envOf(r.env, "AWS_SECRET_ACCESS_KEY"),
			"SSL_CERT_FILE="+envOf(r.env, "AWS_CA_BUNDLE"))
		return cmd
	}
}

// peerRun is one program and its mount.
type peerRun struct {
	t    testing.TB
	peer peer
	env  []string
	args []string // besides those of the peer
	home string
	dir  string
	cmd  *exec.Cmd
}

// start mounts, which a program may refuse.
func (r *peerRun) start() error {
	r.t.Helper()
	r.dir = filepath.Join(r.t.TempDir(), "mnt")
	must(r.t, os.Mkdir(r.dir, 0o755))
	r.cmd = r.peer.command(r)
	log := &syncBuffer{}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := r.cmd.Start(); err != nil {
		return err
	}
	r.t.Cleanup(func() { exec.Command("fusermount3", "-u", "-z", r.dir).Run() })
	for deadline := time.Now().Add(30 * time.Second); !isMountPoint(r.dir); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.cmd.Process.Kill()
			_ = r.cmd.Wait()
			return fmt.Errorf("%s does not mount\n%s", r.peer.name, log)
		}
	}
	return nil
}

// isMountPoint tells whether another file system begins at dir.
func isMountPoint(dir string) bool {
	var here, above syscall.Stat_t
	return syscall.Stat(dir, &here) == nil && syscall.Stat(filepath.Dir(dir), &above) == nil && here.Dev != above.Dev
}

func (r *peerRun) stop() {
	r.t.Helper()
	for try := 0; exec.Command("fusermount3", "-u", r.dir).Run() != nil; try++ {
		if try == 20 { // what was just closed may be busy for a moment
			r.t.Logf("%s: is busy, and unmounted all the same", r.peer.name)
			exec.Command("fusermount3", "-u", "-z", r.dir).Run()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = r.cmd.Wait() // its exit code says nothing here
}

func (r *peerRun) cpu() float64  { return (&mount{t: r.t, cmd: r.cmd}).cpu() }
func (r *peerRun) peak() float64 { return (&mount{t: r.t, cmd: r.cmd}).peakRSS() }
