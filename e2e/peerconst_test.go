package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// constantPeer is a go-fuse daemon that answers every read with the same bytes:
// what kernel, library and a copy cost, and so the limit of any file system
// that is made of them. It is this test binary, started once more.
var constantPeer = peer{name: "constant", command: func(r *peerRun) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestConstantDaemon$")
	cmd.Env = append(baseEnv(r.t), "COFFER_CONSTANT="+r.dir)
	return cmd
}}

// constantFiles are the files of such a mount, named and as long as the objects
// of the bucket that the others mount.
var constantFiles = map[string]uint64{
	"one": gib, "four": 4 * gib, "p0": gib / 4, "p1": gib / 4, "p2": gib / 4, "p3": gib / 4,
}

// TestConstantDaemon is no test but the daemon, where the variable is set.
func TestConstantDaemon(t *testing.T) {
	dir := os.Getenv("COFFER_CONSTANT")
	if dir == "" {
		t.Skip("constantPeer starts it")
	}
	s, err := gofuse.Mount(dir, &constantRoot{}, &gofuse.Options{MountOptions: fuse.MountOptions{
		FsName: "constant", Name: "constant", MaxWrite: 1 << 20, MaxBackground: 64, DisableSplice: true,
	}})
	must(t, err)
	s.Wait()
}

type constantRoot struct{ gofuse.Inode }

// OnAdd makes the tree.
func (r *constantRoot) OnAdd(ctx context.Context) {
	d := r.NewPersistentInode(ctx, &gofuse.Inode{}, gofuse.StableAttr{Mode: syscall.S_IFDIR})
	r.AddChild("data", d, false)
	data := []byte(strings.Repeat("constant", 1<<17))
	for name, size := range constantFiles {
		d.AddChild(name, d.NewPersistentInode(ctx, &constantFile{size: size, data: data}, gofuse.StableAttr{}), false)
	}
}

type constantFile struct {
	gofuse.Inode
	size uint64
	data []byte // 1 MiB
}

func (f *constantFile) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o444, f.size
	return 0
}

func (f *constantFile) Open(context.Context, uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

func (f *constantFile) Read(_ context.Context, _ gofuse.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n := min(uint64(len(dest)), f.size-min(f.size, uint64(off)), uint64(len(f.data)))
	return fuse.ReadResultData(f.data[:n]), 0
}

// bdiReadAhead is the file in which the kernel keeps how far it reads ahead on
// the mount at dir.
func bdiReadAhead(dir string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "", err
	}
	major, minor := st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&^0xff
	return filepath.Join("/sys/class/bdi", fmt.Sprintf("%d:%d", major, minor), "read_ahead_kb"), nil
}

func TestConstantDaemonServes(t *testing.T) {
	needFUSE(t)
	r := &peerRun{t: t, peer: constantPeer, home: t.TempDir()}
	must(t, r.start())
	defer r.stop()
	st, err := os.Stat(filepath.Join(r.dir, "data", "four"))
	must(t, err)
	if st.Size() != 4*gib {
		t.Errorf("four has %d bytes", st.Size())
	}
	f, err := os.Open(filepath.Join(r.dir, "data", "p0"))
	must(t, err)
	defer f.Close()
	buf := make([]byte, 16)
	if n, err := f.ReadAt(buf, gib/4-8); n != 8 || string(buf[:n]) != "constant" {
		t.Errorf("the last bytes are %q, %v", buf[:n], err)
	}
	if n, err := f.ReadAt(buf, 1<<20-8); n != 16 || string(buf) != "constantconstant" {
		t.Errorf("over a reply's end: %q, %v", buf[:n], err)
	}
}
