package e2e

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Compute nodes run kernels as old as 4.18 (RHEL 8), which this machine does
// not have. The test is the kernel: the daemon gets one end of a socket as its
// /dev/fd/N, and the test speaks the FUSE protocol of that kernel at the other.

// Opcodes of linux/fuse.h.
const (
	opLookup  = 1
	opOpen    = 14
	opRead    = 15
	opWrite   = 16
	opRelease = 18
	opFlush   = 25
	opInit    = 26
	opCreate  = 35
)

// rawKernel sends one request at a time.
type rawKernel struct {
	t      *testing.T
	fd     int
	unique uint64
}

// do sends a request whose body is the fields, in the byte order of the
// machine, and returns the body of the reply.
func (k *rawKernel) do(opcode uint32, node uint64, fields ...any) ([]byte, syscall.Errno) {
	k.t.Helper()
	var body bytes.Buffer
	for _, f := range fields {
		if s, ok := f.(string); ok {
			body.WriteString(s + "\x00")
			continue
		}
		must(k.t, binary.Write(&body, binary.NativeEndian, f))
	}
	k.unique += 2
	var msg bytes.Buffer
	must(k.t, binary.Write(&msg, binary.NativeEndian, fuse.InHeader{
		Length: uint32(40 + body.Len()), Opcode: opcode, Unique: k.unique, NodeId: node,
		Caller: fuse.Caller{Owner: fuse.Owner{Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}, Pid: uint32(os.Getpid())},
	}))
	msg.Write(body.Bytes())
	_, err := unix.Write(k.fd, msg.Bytes())
	must(k.t, err)
	reply := make([]byte, 256<<10)
	for {
		n, err := unix.Read(k.fd, reply)
		must(k.t, err)
		if n < 16 {
			k.t.Fatalf("a reply of %d bytes to opcode %d", n, opcode)
		}
		if length := binary.NativeEndian.Uint32(reply); int(length) != n {
			k.t.Fatalf("a reply of %d bytes says that it has %d", n, length)
		}
		if binary.NativeEndian.Uint64(reply[8:]) == k.unique { // else a notification
			return reply[16:n], syscall.Errno(-int32(binary.NativeEndian.Uint32(reply[4:])))
		}
	}
}

// ok is do for a request that must succeed.
func (k *rawKernel) ok(opcode uint32, node uint64, fields ...any) []byte {
	k.t.Helper()
	reply, errno := k.do(opcode, node, fields...)
	if errno != 0 {
		k.t.Fatalf("opcode %d: %v", opcode, errno)
	}
	return reply
}

func u32(p []byte) uint32 { return binary.NativeEndian.Uint32(p) }
func u64(p []byte) uint64 { return binary.NativeEndian.Uint64(p) }

func TestKernel418(t *testing.T) {
	s := startEmulator(t, "aws")
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	data := random(t, 3<<20)
	other.put(t, "bucket", "f", string(data))

	// Message boundaries are kept, as by the device; and a stuck daemon ends
	// the test.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pair[0])
	must(t, unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30}))
	device := os.NewFile(uintptr(pair[1]), "fuse")
	log := &syncBuffer{}
	cmd := exec.Command(coffer(t), "mount", "s3://bucket", "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{device}
	cmd.Env = append(baseEnv(t), s.Env()...)
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	must(t, device.Close())
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("log of the mount:\n%s", log)
		}
	}()

	// What 4.18 offers: 7.27, in the short form of INIT. MAX_PAGES came with
	// 7.28, NO_OPENDIR_SUPPORT with 7.29 and EXPLICIT_INVAL_DATA with 7.30.
	const offered = fuse.CAP_ASYNC_READ | fuse.CAP_POSIX_LOCKS | fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_EXPORT_SUPPORT |
		fuse.CAP_BIG_WRITES | fuse.CAP_DONT_MASK | fuse.CAP_SPLICE_WRITE | fuse.CAP_SPLICE_MOVE | fuse.CAP_SPLICE_READ |
		fuse.CAP_FLOCK_LOCKS | fuse.CAP_IOCTL_DIR | fuse.CAP_AUTO_INVAL_DATA | fuse.CAP_READDIRPLUS | fuse.CAP_READDIRPLUS_AUTO |
		fuse.CAP_ASYNC_DIO | fuse.CAP_WRITEBACK_CACHE | fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PARALLEL_DIROPS |
		fuse.CAP_HANDLE_KILLPRIV | fuse.CAP_POSIX_ACL | fuse.CAP_ABORT_ERROR
	k := &rawKernel{t: t, fd: pair[0]}
	init := k.ok(opInit, 0, []uint32{7, 27, 128 << 10, offered})
	var settled fuse.InitOut
	if len(init) < 64 {
		t.Fatalf("an answer of %d bytes to INIT", len(init))
	}
	settled.Major, settled.Minor = u32(init), u32(init[4:])
	settled.Flags, settled.Flags2 = u32(init[12:]), u32(init[32:])
	settled.MaxBackground = binary.NativeEndian.Uint16(init[16:])
	if settled.Major != 7 || settled.Minor > 27 {
		t.Errorf("the daemon wants protocol %d.%d", settled.Major, settled.Minor)
	}
	// go-fuse always says that it knows of more flags; kernels that do not
	// ignore the bit.
	if more := settled.Flags64() &^ (offered | fuse.CAP_INIT_EXT); more != 0 {
		t.Errorf("the daemon takes capabilities %#x that were not offered", more)
	}
	for name, flag := range map[string]uint64{"ATOMIC_O_TRUNC": fuse.CAP_ATOMIC_O_TRUNC, "ASYNC_READ": fuse.CAP_ASYNC_READ, "BIG_WRITES": fuse.CAP_BIG_WRITES, "READDIRPLUS": fuse.CAP_READDIRPLUS} {
		if settled.Flags64()&flag == 0 {
			t.Errorf("%s is not settled", name)
		}
	}
	for name, flag := range map[string]uint64{"WRITEBACK_CACHE": fuse.CAP_WRITEBACK_CACHE, "READDIRPLUS_AUTO": fuse.CAP_READDIRPLUS_AUTO, "AUTO_INVAL_DATA": fuse.CAP_AUTO_INVAL_DATA} {
		if settled.Flags64()&flag != 0 {
			t.Errorf("%s is settled", name)
		}
	}
	// The kernel's default of 12 lets small requests wait behind large ones.
	if settled.MaxBackground != 64 {
		t.Errorf("max_background is %d", settled.MaxBackground)
	}

	// Reads of 128 KiB, the largest that it sends.
	entry := k.ok(opLookup, 1, "f")
	node, size := u64(entry), u64(entry[48:])
	if size != uint64(len(data)) {
		t.Errorf("the size is %d", size)
	}
	fh := u64(k.ok(opOpen, node, []uint32{syscall.O_RDONLY, 0}))
	for off := 0; off < len(data); off += 128 << 10 {
		got := k.ok(opRead, node, []uint64{fh, uint64(off)}, []uint32{128 << 10, 0}, uint64(0), []uint32{0, 0})
		if !bytes.Equal(got, data[off:off+128<<10]) {
			t.Fatalf("%d wrong bytes at %d", len(got), off)
		}
	}
	k.ok(opRelease, node, fh, []uint32{0, 0}, uint64(0))

	// A new file, and what its close tells the store.
	created := k.ok(opCreate, 1, []uint32{syscall.O_WRONLY | syscall.O_CREAT, syscall.S_IFREG | 0o644, 0o022, 0}, "new")
	node, fh = u64(created), u64(created[128:])
	for off := 0; off < 256<<10; off += 128 << 10 {
		k.ok(opWrite, node, []uint64{fh, uint64(off)}, []uint32{128 << 10, 0}, uint64(0), []uint32{0, 0}, data[off:off+128<<10])
	}
	k.ok(opFlush, node, fh, []uint32{0, 0}, uint64(1))
	if got := other.get(t, "bucket", "new"); got != string(data[:256<<10]) {
		t.Errorf("the store has %d bytes", len(got))
	}
	k.ok(opRelease, node, fh, []uint32{0, 0}, uint64(1))
	if _, errno := k.do(opLookup, 1, "absent"); errno != syscall.ENOENT {
		t.Errorf("a name that is not there: %v", errno)
	}
	if err := cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the daemon is gone: %v", err)
	}
}
