package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"coffer/objstore/emulator"
	"coffer/objstore/storetest"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// TestOddBuckets holds every line of the table of buckets that are not simply
// one's own.
func TestOddBuckets(t *testing.T) {
	tests := map[string]func(*testing.T){
		"of another account": func(t *testing.T) {
			m, _ := traitMount(t, emulator.Traits{Foreign: true})
			if names, err := exec.Command("ls", m.dir).CombinedOutput(); err != nil || len(names) != 0 {
				t.Errorf("ls: %v, %q", err, names)
			}
			_, err := os.Stat(m.path("bucket"))
			wantErrno(t, "stat", err, syscall.EACCES)
			_, err = os.ReadFile(m.path("bucket", "file"))
			wantErrno(t, "read", err, syscall.EACCES)
			wantErrno(t, "mkdir", os.Mkdir(m.path("bucket"), 0o755), syscall.EACCES)
			m.wantLog(t, `open bucket \"bucket\"`, "another account's")
		},
		"requester pays, not agreed to": func(t *testing.T) {
			m, _ := traitMount(t, emulator.Traits{Foreign: true, RequesterPays: true})
			_, err := os.ReadFile(m.path("bucket", "file"))
			wantErrno(t, "read", err, syscall.EACCES)
			m.wantLog(t, `open bucket \"bucket\"`, "lets the requester pay, agree")
		},
		"requester pays, with -o requester_pays": func(t *testing.T) {
			m, _ := traitMount(t, emulator.Traits{Foreign: true, RequesterPays: true}, "-o", "requester_pays")
			want(t, m.path("bucket", "file"), "data")
			write(t, m.path("bucket", "new"), "new")
			must(t, os.Rename(m.path("bucket", "new"), m.path("bucket", "newer")))
			want(t, m.path("bucket", "newer"), "new")
		},
		"in another region": func(t *testing.T) {
			m, _ := traitMount(t, emulator.Traits{Region: "eu-central-1"})
			want(t, m.path("bucket", "file"), "data")
			write(t, m.path("bucket", "new"), "new")
			must(t, os.Rename(m.path("bucket", "new"), m.path("bucket", "newer")))
			m.stop()
			// A store that says 400 to a region that is not its own.
			m.env = append(m.env, "AWS_REGION=eu-west-3")
			m.start()
			want(t, m.path("bucket", "newer"), "new")
		},
		"policy that denies uploads without a header for encryption": func(t *testing.T) {
			m, _ := policyMount(t, `{"Effect":"Deny","Action":"s3:PutObject","Resource":"arn:aws:s3:::*","Condition":{"Null":{"s3:x-amz-server-side-encryption":"true"}}}`)
			for name, data := range map[string][]byte{"small": []byte("data"), "large": random(t, 20<<20)} {
				must(t, os.WriteFile(m.path("bucket", name), data, 0o644))
				want(t, m.path("bucket", name), string(data))
				if got := xattr(t, m.path("bucket", name), "user.s3.encryption"); got != encryption(t, "SSE-S3") {
					t.Errorf("user.s3.encryption is %q", got)
				}
				must(t, os.Rename(m.path("bucket", name), m.path("bucket", name+"-2")))
			}
		},
		"policy that denies every change": func(t *testing.T) {
			m, other := policyMount(t, `{"Effect":"Deny","Action":["s3:PutObject","s3:DeleteObject"],"Resource":"arn:aws:s3:::*"}`)
			other.put(t, "bucket", "there", "data")
			want(t, m.path("bucket", "there"), "data")
			wantErrno(t, "create", os.WriteFile(m.path("bucket", "new"), []byte("x"), 0o644), syscall.EACCES)
			wantErrno(t, "remove", os.Remove(m.path("bucket", "there")), syscall.EACCES)
			want(t, m.path("bucket", "there"), "data")
			m.wantLog(t, "AccessDenied")
		},
		"customer keys (SSE-C) are blocked": func(t *testing.T) {
			key, _ := customerKeyFile(t)
			m, _ := traitMount(t, emulator.Traits{}, "--sse", "customer", "--sse-customer-key-file", key)
			wantErrno(t, "create", os.WriteFile(m.path("bucket", "new"), []byte("x"), 0o644), syscall.EACCES)
			m.wantLog(t, "remove SSE-C from the BlockedEncryptionTypes")
			want(t, m.path("bucket", "file"), "data")
			must(t, os.Mkdir(m.path("own-bucket"), 0o755))
			write(t, m.path("own-bucket", "new"), "x")
		},
		"with files under a KMS key that is disabled": func(t *testing.T) {
			s := startEmulator(t, "aws")
			arn, err := s.CreateKMSKey("mine")
			must(t, err)
			m := mountStore(t, s.Env(), "--sse", "kms", "--sse-kms-key-id", "alias/mine")
			must(t, os.Mkdir(m.path("bucket"), 0o755))
			must(t, os.WriteFile(m.path("bucket", "file"), random(t, 100_000), 0o644))
			m.stop()
			m.start("--sse", "kms", "--sse-kms-key-id", "alias/mine")
			must(t, s.DisableKMSKey(arn))
			if st, err := os.Stat(m.path("bucket", "file")); err != nil || st.Size() != 100_000 {
				t.Errorf("stat: %v", err)
			}
			_, err = os.ReadFile(m.path("bucket", "file"))
			wantErrno(t, "read", err, syscall.EACCES)
			wantErrno(t, "write", os.WriteFile(m.path("bucket", "new"), []byte("x"), 0o644), syscall.EACCES)
			op := "op=read"
			if clientSide(t) {
				op = "op=open" // proves the size
			}
			m.wantLog(t, op, arn+" is disabled")
			must(t, s.EnableKMSKey(arn))
			_, err = os.ReadFile(m.path("bucket", "file"))
			must(t, err)
			write(t, m.path("bucket", "new"), "x")
		},
		"with versions": func(t *testing.T) {
			m, other := versionedMount(t, minio.MakeBucketOptions{})
			must(t, other.c.EnableVersioning(context.Background(), "bucket"))
			write(t, m.path("bucket", "file"), "one")
			first := xattr(t, m.path("bucket", "file"), "user.s3.version-id")
			write(t, m.path("bucket", "file"), "two")
			want(t, m.path("bucket", "file"), "two")
			if second := xattr(t, m.path("bucket", "file"), "user.s3.version-id"); first == "" || second == "" || first == second {
				t.Errorf("version ids %q and %q", first, second)
			}
			must(t, os.Remove(m.path("bucket", "file")))
			_, err := os.Stat(m.path("bucket", "file"))
			wantErrno(t, "stat", err, syscall.ENOENT)
			if got := other.versions(t, "bucket"); got["file"] != 3 || len(got) != 1 {
				t.Errorf("versions and delete markers: %v", got)
			}
			wantErrno(t, "rmdir", os.Remove(m.path("bucket")), syscall.ENOTEMPTY)
		},
		"with object lock": func(t *testing.T) {
			m, other := versionedMount(t, minio.MakeBucketOptions{ObjectLocking: true})
			mode, days, unit := minio.Governance, uint(1), minio.Days
			must(t, other.c.SetObjectLockConfig(context.Background(), "bucket", &mode, &days, &unit))
			for name, data := range map[string][]byte{"small": []byte("data"), "large": random(t, 20<<20)} {
				must(t, os.WriteFile(m.path("bucket", name), data, 0o644))
				must(t, os.WriteFile(m.path("bucket", name), data, 0o644))
				want(t, m.path("bucket", name), string(data))
				must(t, os.Remove(m.path("bucket", name)))
				if got := other.versions(t, "bucket")[name]; got != 3 {
					t.Errorf("%d versions and delete markers of %s", got, name)
				}
			}
			m.wantLog(t, "bucket locks its objects", "hidden=true")
			if keys := other.keys(t, "bucket"); len(keys) != 0 {
				t.Errorf("others see %v", keys)
			}
		},
		"with archived objects": func(t *testing.T) {
			m, other := traitMount(t, emulator.Traits{})
			_, err := other.c.PutObject(context.Background(), "bucket", "cold", strings.NewReader("cold data"), 9, minio.PutObjectOptions{StorageClass: "DEEP_ARCHIVE"})
			must(t, err)
			st, err := os.Stat(m.path("bucket", "cold"))
			must(t, err)
			if st.Size() != 9 || xattr(t, m.path("bucket", "cold"), "user.s3.storage-class") != "DEEP_ARCHIVE" {
				t.Errorf("size %d", st.Size())
			}
			_, err = os.ReadFile(m.path("bucket", "cold"))
			wantErrno(t, "read", err, syscall.EIO)
			wantErrno(t, "rename", os.Rename(m.path("bucket", "cold"), m.path("bucket", "warm")), syscall.EIO)
			m.wantLog(t, "must be restored before it can be read")
			var restore minio.RestoreRequest
			restore.SetDays(1)
			must(t, other.c.RestoreObject(context.Background(), "bucket", "cold", "", restore))
			want(t, m.path("bucket", "cold"), "cold data")
		},
	}
	rows := semanticsTable(t, "### Buckets that are not simply one's own")
	for _, row := range rows {
		test := tests[row[0]]
		if test == nil {
			t.Errorf("no test for %q", row[0])
			continue
		}
		t.Run(row[0], test)
	}
	if len(rows) != len(tests) {
		t.Errorf("%d lines and %d tests", len(rows), len(tests))
	}
}

// traitMount mounts all buckets of an emulator in which "bucket", which holds
// "file", has traits.
func traitMount(t *testing.T, traits emulator.Traits, args ...string) (*mount, independent) {
	t.Helper()
	s, err := emulator.New(emulator.Config{Dir: filepath.Join(storetest.DataDir(t), "emulator"), AllowSSECOverHTTP: true})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	must(t, s.Listen("127.0.0.1:0"))
	other := client(t, s.Env())
	other.makeBucket(t, "bucket")
	other.put(t, "bucket", "file", "data")
	s.SetTraits("bucket", traits)
	return mountStore(t, s.Env(), args...), other
}

// versionedMount mounts MinIO with a bucket that is made with opts and encrypts.
func versionedMount(t *testing.T, opts minio.MakeBucketOptions) (*mount, independent) {
	t.Helper()
	env := storetest.StartMinIO(t).Env()
	other := client(t, env)
	must(t, other.c.MakeBucket(context.Background(), "bucket", opts))
	return mountStore(t, env), other
}

// policyMount mounts MinIO for a session of which a statement restricts what
// it may do.
func policyMount(t *testing.T, statement string) (*mount, independent) {
	t.Helper()
	srv := storetest.StartMinIO(t)
	other := client(t, srv.Env())
	other.makeBucket(t, "bucket")
	sts, err := credentials.NewSTSAssumeRole(srv.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: srv.AccessKeyID, SecretKey: srv.SecretAccessKey, Location: srv.Region, DurationSeconds: 3600,
		Policy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::*"},` + statement + `]}`,
	})
	must(t, err)
	v, err := sts.GetWithContext(nil)
	must(t, err)
	env := append(srv.Env(), "AWS_ACCESS_KEY_ID="+v.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+v.SecretAccessKey, "AWS_SESSION_TOKEN="+v.SessionToken)
	return mountStore(t, env), other
}

// versions counts the versions and delete markers of each key.
func (i independent) versions(t testing.TB, bucket string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for o := range i.c.ListObjects(context.Background(), bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		must(t, o.Err)
		n[o.Key]++
	}
	return n
}

// wantLog waits for one log line that has all the words: it comes by a pipe.
func (m *mount) wantLog(t testing.TB, words ...string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		for line := range strings.Lines(m.log.String()) {
			found := true
			for _, w := range words {
				found = found && strings.Contains(line, w)
			}
			if found {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no log line has %q:\n%s", words, m.log)
		}
	}
}
