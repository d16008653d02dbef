package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/storetest"
)

// nobody is a user without any rights, who need not exist in /etc/passwd.
const nobody = 65534

// asNobody makes a command run as that user.
func asNobody(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{}}}
}

// smallTree is a real tree of a few hundred files.
func smallTree(t testing.TB) string { return filepath.Join(goSources(t), "encoding") }

// TestMainJobUnprivileged runs the main job as a user without rights: the
// mount goes through fusermount3, detaches, and nobody else can look inside.
func TestMainJobUnprivileged(t *testing.T) {
	needFUSE(t)
	if _, err := exec.LookPath("fusermount3"); err != nil {
		storetest.Missing(t, "fusermount3 is not installed: %v", err)
	}
	prepare := asNobody
	if os.Getuid() != 0 {
		prepare = func(*exec.Cmd) {} // unprivileged already
	}
	openFUSEToAll(t)
	s := startEmulator(t, "aws")
	// Not t.TempDir: what is above that one is closed to other users.
	home, err := os.MkdirTemp("", "coffer-e2e-home-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(home) })
	mnt := filepath.Join(home, "mnt")
	must(t, os.Mkdir(mnt, 0o700))
	if os.Getuid() == 0 {
		for _, dir := range []string{home, mnt} {
			must(t, os.Chown(dir, nobody, nobody))
		}
	}
	env := append(s.Env(), "HOME="+home, "TMPDIR="+home, "XDG_RUNTIME_DIR="+home, "PATH="+os.Getenv("PATH"),
		"AWS_EC2_METADATA_DISABLED=true", "MNT="+mnt, "COFFER="+coffer(t), raceOptions)
	do := func(script string) {
		t.Helper()
		timed(t, script, func() {
			shell(t, func(cmd *exec.Cmd) {
				prepare(cmd)
				cmd.Env = append(cmd.Env, env...)
				cmd.Dir = home
			}, script, smallTree(t), filepath.Join(mnt, "dataset", "tree"))
		})
	}
	// Whatever fails below, no mount stays behind.
	t.Cleanup(func() {
		if mounted(mnt) {
			cmd := exec.Command("fusermount3", "-u", "-z", mnt)
			prepare(cmd)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("fusermount3: %v, %s", err, out)
			}
		}
	})
	// A mount that its own user may not enter is refused, and gone again.
	do(`out=$("$COFFER" mount --uid 1234 --umask 077 "$MNT" 2>&1) && exit 1; case $out in *--umask*) ;; *) echo "$out"; exit 1 ;; esac`)
	if mounted(mnt) {
		t.Fatal("still mounted after the mount failed")
	}
	do(`"$COFFER" mount "$MNT"`) // returns: it detaches
	if os.Getuid() == 0 {
		if _, err := os.ReadDir(mnt); err == nil {
			t.Error("another user, even root, can look into the mount")
		}
	}
	do(`mkdir "$MNT/dataset" && cp -a "$SRC" "$DST"`)
	do(`diff -r "$SRC" "$DST"`)
	do(`test "$(stat -c %u "$DST")" = "$(id -u)"`)
	do(`head -c 1M /dev/zero > "$MNT/dataset/file" && "$COFFER" umount "$MNT"`)
	if mounted(mnt) {
		t.Fatal("still mounted after umount")
	}
	do(`"$COFFER" mount "$MNT" && diff -r "$SRC" "$DST" && "$COFFER" umount "$MNT"`)
	client(t, s.Env()).compareTree(t, "dataset", "tree/", smallTree(t))
	do(`"$COFFER" run s3://dataset -- sh -c 'diff -r "$SRC" "$COFFER_MNT/tree"'`)
}

// openFUSEToAll gives /dev/fuse the permissions that udev gives it on every
// distribution, 0666, for the time of the test. Containers often get a node
// that only root can open, and fusermount3 opens it as the user.
func openFUSEToAll(t *testing.T) {
	t.Helper()
	st, err := os.Stat("/dev/fuse")
	must(t, err)
	if st.Mode().Perm()&0o006 == 0o006 || os.Getuid() != 0 {
		return
	}
	must(t, os.Chmod("/dev/fuse", 0o666))
	t.Cleanup(func() { must(t, os.Chmod("/dev/fuse", st.Mode().Perm())) })
}

// TestMainJobDevFD runs the main job on a mount point /dev/fd/N: the test has
// opened and mounted the FUSE device, as a container runtime does, and passes
// it to a daemon that needs no right to mount.
func TestMainJobDevFD(t *testing.T) {
	needFUSE(t)
	needRoot(t, "only root can mount(2) as a container runtime does")
	s := startEmulator(t, "aws")
	client(t, s.Env()).makeBucket(t, "dataset")
	mnt := filepath.Join(t.TempDir(), "mnt")
	must(t, os.Mkdir(mnt, 0o755))
	round := func(job func()) {
		dev, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		must(t, err)
		defer dev.Close()
		opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions", dev.Fd())
		must(t, syscall.Mount("container", mnt, "fuse.container", syscall.MS_NOSUID|syscall.MS_NODEV, opts))
		unmounted := false
		unmount := func() {
			if !unmounted {
				unmounted = true
				must(t, syscall.Unmount(mnt, syscall.MNT_DETACH))
			}
		}
		defer unmount()
		log := &syncBuffer{}
		cmd := exec.Command(coffer(t), "mount", "s3://dataset", "/dev/fd/3")
		cmd.ExtraFiles = []*os.File{dev} // becomes descriptor 3
		cmd.Env = append(baseEnv(t), s.Env()...)
		cmd.Stdout, cmd.Stderr = log, log
		must(t, cmd.Start())
		// Ours must go, or the kernel would wait for this process's answers
		// after the daemon's end.
		must(t, dev.Close())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		defer func() { // reached only where something failed
			if cmd.ProcessState == nil {
				cmd.Process.Kill()
			}
		}()
		job()
		unmount()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the daemon ended: %v\n%s", err, log)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("the daemon did not end with the mount\n%s", log)
			cmd.Process.Kill()
			<-ended
		}
		if strings.Contains(log.String(), "DATA RACE") {
			t.Errorf("a data race:\n%s", log)
		}
	}
	round(func() {
		shell(t, nil, `cp -a "$SRC" "$DST"`, smallTree(t), filepath.Join(mnt, "tree"))
		shell(t, nil, `diff -r "$SRC" "$DST"`, smallTree(t), filepath.Join(mnt, "tree"))
	})
	round(func() { shell(t, nil, `diff -r "$SRC" "$DST"`, smallTree(t), filepath.Join(mnt, "tree")) })
	client(t, s.Env()).compareTree(t, "dataset", "tree/", smallTree(t))
}
