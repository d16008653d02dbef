package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMountOptions(t *testing.T) {
	for _, c := range []struct {
		text   string
		want   []mountOption
		kernel mountFlags
	}{
		{"", nil, mountFlags{}},
		{"ro", []mountOption{{"ro", "read-only", "true"}}, mountFlags{}},
		{"rw,ro", []mountOption{{"rw", "read-only", "false"}, {"ro", "read-only", "true"}}, mountFlags{}},
		{"defaults,_netdev,x-systemd.automount,X-mount.mkdir,nofail,noauto,user,nosuid,nodev,suid,dev,comment=a", nil, mountFlags{}},
		{"noexec,noatime", nil, mountFlags{NoExec: true}},
		{"allow_other,uid=1000", []mountOption{{"allow_other", "allow-other", "true"}, {"uid", "uid", "1000"}}, mountFlags{}},
		{"allow-other=false", []mountOption{{"allow-other", "allow-other", "false"}}, mountFlags{}},
		{`endpoint_url=http://h:1/a\,b,region=r\\x`, []mountOption{{"endpoint_url", "endpoint-url", "http://h:1/a,b"}, {"region", "region", `r\x`}}, mountFlags{}},
		{"config=/etc/c,,nonempty", []mountOption{{"config", "config", "/etc/c"}, {"nonempty", "nonempty", "true"}}, mountFlags{}},
	} {
		got, kernel, err := parseMountOptions(c.text)
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, got, c.text)
		require.Equal(t, c.kernel, kernel, c.text)
	}
	for text, want := range map[string]string{
		"bogus": "unknown mount option", "alow_other": "unknown", "uid": "needs a value", "sync": "close and fsync",
		"remount": "unmount", "foreground": "unknown", "=x": "unknown", "secret_access_key=x": "unknown",
	} {
		_, _, err := parseMountOptions(text)
		require.ErrorContains(t, err, want, text)
	}
}

func FuzzMountOptions(f *testing.F) {
	f.Add(`ro,uid=5,endpoint_url=http://x\,y`)
	f.Add(`defaults,x-a=b,\\,noexec`)
	kinds := settingKinds()
	f.Fuzz(func(t *testing.T, text string) {
		// Splitting loses nothing: quoted and joined it splits the same.
		items := splitOptions(text)
		quoted := make([]string, len(items))
		for i, s := range items {
			quoted[i] = strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
		}
		require.Equal(t, items, splitOptions(strings.Join(quoted, ",")))
		opts, _, err := parseMountOptions(text)
		if err != nil {
			return
		}
		for _, o := range opts {
			require.Contains(t, kinds, o.flag)
		}
	})
}

func TestSource(t *testing.T) {
	for text, want := range map[string]source{
		"s3://": {}, "s3://b": {Bucket: "b"}, "s3://b/": {Bucket: "b"}, "s3://b/p": {"b", "p"}, "s3://b/p/q/": {"b", "p/q"},
		"s3://b/with space": {"b", "with space"},
	} {
		got, err := parseSource(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "b", "/mnt", "http://b", "s3:/b", "s3:///p", "s3://b//p", "s3://b/p//", "s3://b/p//q", "s3://b/../x", "s3://b/./x", "s3://a b", "s3://a:b", "s3://k:s@b"} {
		_, err := parseSource(text)
		require.Error(t, err, text)
	}
	_, err := parseBucketArg("s3://b/p")
	require.Error(t, err)
	_, err = parseBucketArg("s3://")
	require.Error(t, err)
	b, err := parseBucketArg("s3://b/")
	require.NoError(t, err)
	require.Equal(t, "b", b)
}

func FuzzSource(f *testing.F) {
	f.Add("s3://bucket/prefix/x")
	f.Add("s3://b//")
	f.Fuzz(func(t *testing.T, text string) {
		src, err := parseSource(text)
		if err != nil {
			return
		}
		again, err := parseSource(src.String())
		require.NoError(t, err)
		require.Equal(t, src, again)
	})
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"coffer mount x", "mount x"},
		{"coffer", ""},
		{"coffer s3://b /mnt -o ro", "mount s3://b /mnt -o ro"},
		{"/usr/bin/coffer s3:// /mnt", "mount s3:// /mnt"},
		{"/sbin/mount.coffer s3://b /mnt -o ro,dev", "mount -o ro,dev -- s3://b /mnt"},
		{"/sbin/mount.fuse.coffer none /mnt -sn -v -o ro -t fuse.coffer", "mount -o ro -- s3:// /mnt"},
		{"mount.coffer coffer /mnt -f", "mount --fake -- s3:// /mnt"},
	} {
		got, err := commandLine(strings.Fields(c.in))
		require.NoError(t, err, c.in)
		require.Equal(t, c.want, strings.Join(got, " "), c.in)
	}
	for _, in := range []string{"mount.coffer s3://b", "mount.coffer a b c", "mount.coffer s3://b /mnt -o", "mount.coffer s3://b /mnt -N 1", "mount.coffer s3://b /mnt -x"} {
		_, err := commandLine(strings.Fields(in))
		require.Equal(t, exitUsage, exitCode(err), in)
	}
}

func TestMountInfo(t *testing.T) {
	const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:44 / /mnt/a\040b rw,nosuid,nodev,relatime shared:9 - fuse.coffer s3://x\134y rw,user_id=1000,group_id=0
41 22 0:45 / /mnt/c rw - fuse.other o rw,user_id=0
short line
`
	all, err := parseMountInfo(strings.NewReader(text))
	require.NoError(t, err)
	require.Equal(t, []mountEntry{
		{"/", "ext4", "/dev/vda", "254:0", -1},
		{"/mnt/a b", "fuse.coffer", `s3://x\y`, "0:44", 1000},
		{"/mnt/c", "fuse.other", "o", "0:45", 0},
	}, all)
}

func FuzzMountInfo(f *testing.F) {
	f.Add(`40 22 0:44 / /mnt/a\040b rw shared:9 - fuse.coffer s3://x rw,user_id=1000`)
	f.Fuzz(func(t *testing.T, text string) {
		_, err := parseMountInfo(strings.NewReader(text))
		require.NoError(t, err)
	})
}

func TestInheritedFD(t *testing.T) {
	for dir, want := range map[string]int{"/dev/fd/0": 0, "/dev/fd/17": 17} {
		n, ok := inheritedFD(dir)
		require.True(t, ok, dir)
		require.Equal(t, want, n)
	}
	for _, dir := range []string{"/mnt", "/dev/fd/", "/dev/fd/x", "/dev/fd/-1", "/dev/fd/1/2"} {
		_, ok := inheritedFD(dir)
		require.False(t, ok, dir)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"http://127.0.0.1:90": "http://127.0.0.1:90", "a+/=": "a+/=", "": "''", "a b": "'a b'", "a'b": `'a'\''b'`, "$x": "'$x'"} {
		require.Equal(t, want, shellQuote(in))
	}
}
