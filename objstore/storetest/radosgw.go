package storetest

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// radosgwPrograms are what Debian's packages radosgw, ceph-mon and ceph-osd
// bring, in the order of their use.
var radosgwPrograms = []string{"ceph-authtool", "monmaptool", "ceph-mon", "ceph", "ceph-osd", "radosgw-admin", "radosgw"}

// radosgwConf is the least of a cluster that radosgw needs: one monitor and one
// OSD in memory, everything on loopback and below one directory. The keys of
// its testing KMS are "demo-key", as MinIO's, and "second-key".
const radosgwConf = `[global]
fsid = %[1]s
mon host = [v2:%[2]s/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = %[3]s/keyring
log file = %[3]s/$name.log
admin socket = %[3]s/$name.asok
run dir = %[3]s
crash dir = %[3]s/crash
mon data = %[3]s/mon
osd data = %[3]s/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 10000
rgw data = %[3]s/rgw
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = demo-key=%[4]s second-key=%[5]s
`

// StartRadosGW spawns radosgw over a cluster of its own in memory: a second
// SSE-KMS and SSE-C, with two keys, and an old server that takes requests for
// what they are not. It is optional, since it is much to install: without
// COFFER_RADOSGW=1, as "make e2e-radosgw" sets it, the test is skipped aloud.
func StartRadosGW(t testing.TB) *Server {
	t.Helper()
	if os.Getenv("COFFER_RADOSGW") != "1" {
		Skip(t, "radosgw is optional: make e2e-radosgw runs it")
	}
	for _, name := range radosgwPrograms {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%v: install the packages radosgw, ceph-mon and ceph-osd", err)
		}
	}
	dir := DataDir(t)
	c := &cephCluster{t: t, dir: dir, env: append(toolEnv(dir), "CEPH_CONF="+filepath.Join(dir, "ceph.conf"))}
	mon := freeAddr(t)
	key := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	fsid := newUUID(t)
	conf := fmt.Sprintf(radosgwConf, fsid, mon, dir,
		key("0123456789abcdef0123456789abcdef"), key("abcdef0123456789abcdef0123456789"))
	if err := os.WriteFile(filepath.Join(dir, "ceph.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"mon", "osd", "rgw"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"--create-keyring", "-n", "mon.", "--cap", "mon", "allow *"},
		{"-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *"},
		{"-n", "osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *"},
		{"-n", "client.rgw.x", "--cap", "mon", "allow rw", "--cap", "osd", "allow rwx"},
	} {
		c.run("ceph-authtool", append([]string{"keyring", "--gen-key"}, args...)...)
	}
	c.run("monmaptool", "--create", "--addv", "a", "[v2:"+mon+"]", "--fsid", fsid, "monmap")
	c.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "keyring")
	c.daemon("ceph-mon", "-i", "a")
	c.run("ceph", "auth", "import", "-i", "keyring")
	osd := newUUID(t)
	c.run("ceph", "osd", "new", osd)
	c.run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", osd)
	c.daemon("ceph-osd", "-i", "0")
	c.run("radosgw-admin", "-n", "client.rgw.x", "user", "create", "--uid=test", "--display-name=test",
		"--access-key="+rootUser, "--secret-key="+rootSecret)
	s := &Server{Name: "radosgw", AccessKeyID: rootUser, SecretAccessKey: rootSecret, Region: region, Dir: dir}
	start(t, s, "http", "/", func(addr string) *exec.Cmd {
		// Without tcp_nodelay each reply waits 40 ms for a delayed ACK.
		return c.command("radosgw", "-f", "-n", "client.rgw.x", "--rgw-frontends", "beast tcp_nodelay=1 endpoint="+addr)
	})
	return s
}

// cephCluster runs programs of one cluster.
type cephCluster struct {
	t   testing.TB
	dir string
	env []string
}

func (c *cephCluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	return cmd
}

// run runs one to its end; they wait for ever for a cluster that is not there.
func (c *cephCluster) run(name string, args ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// daemon runs one in the foreground until the test ends.
func (c *cephCluster) daemon(name string, args ...string) {
	c.t.Helper()
	p, err := spawn(c.command(name, append(args, "-f")...))
	if err != nil {
		c.t.Fatalf("start %s: %v", name, err)
	}
	c.t.Cleanup(func() {
		p.kill()
		if c.t.Failed() {
			c.t.Logf("output of %s:\n%s", name, p.out.String())
		}
	})
}

// newUUID returns a random UUID, which the kernel makes.
func newUUID(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
