package storetest_test

import (
	"strings"
	"testing"

	"coffer/objstore"
	"coffer/objstore/emulator"
	"coffer/objstore/s3store"
	"coffer/objstore/storetest"
)

// openS3 returns an s3store for the server that env describes. Parts are as
// small as S3 allows, which is the suite's default.
func openS3(t *testing.T, env []string, cfg s3store.Config) objstore.Store {
	t.Helper()
	storetest.SetEnv(t, env)
	cfg.PartSize = 5 << 20
	s, err := s3store.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// startEmulator serves the emulator until the test ends.
func startEmulator(t testing.TB, dialect string) *emulator.Server {
	t.Helper()
	s, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), Dialect: dialect})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the emulator: %v", err)
		}
	})
	if err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEmulator(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "emulator", Accept: storetest.Accepted("emulator"),
		Open: func(t *testing.T) objstore.Store {
			return openS3(t, startEmulator(t, "aws").Env(), s3store.Config{})
		}})
}

func TestEmulatorListV1(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "listv1", Accept: storetest.Accepted("emulator"),
		Only: []string{"Listing", "ManyKeys", "LongListings"},
		Open: func(t *testing.T) objstore.Store {
			return openS3(t, startEmulator(t, "aws").Env(), s3store.Config{ListVersion: "1"})
		}})
}

// TestSplitListings puts listings through the suite that are listed by several
// ranges at a time, as those of a store that is far away are.
func TestSplitListings(t *testing.T) {
	for _, tc := range []struct {
		name, version string
		start         func(t testing.TB) *storetest.Server
	}{
		{"emulator", "2", func(t testing.TB) *storetest.Server { return serverOf(startEmulator(t, "aws")) }},
		{"minio", "2", storetest.StartMinIO},
		{"minio", "1", storetest.StartMinIO},
		{"versitygw", "2", storetest.StartVersityGW},
	} {
		t.Run(tc.name+" by V"+tc.version, func(t *testing.T) {
			p := storetest.StartProxy(t, tc.start(t))
			storetest.Run(t, storetest.Config{Name: "split", Mode: objstore.ModeNone, Accept: storetest.Accepted(tc.name),
				Only: []string{"LongListings"}, Proxy: p,
				Open: func(t *testing.T) objstore.Store {
					return openS3(t, p.Server().Env(), s3store.Config{AllowUnencrypted: true, ListVersion: tc.version})
				}})
		})
	}
}

// serverOf describes an emulator as the other servers are.
func serverOf(s *emulator.Server) *storetest.Server {
	env := map[string]string{}
	for _, v := range s.Env() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	return &storetest.Server{Name: "emulator", Endpoint: s.Endpoint(), Region: env["AWS_REGION"],
		AccessKeyID: env["AWS_ACCESS_KEY_ID"], SecretAccessKey: env["AWS_SECRET_ACCESS_KEY"]}
}

func TestEmulatorWithoutEncryption(t *testing.T) {
	for _, dialect := range []string{"liar", "nosse"} {
		t.Run(dialect, func(t *testing.T) {
			storetest.Run(t, storetest.Config{Name: dialect, Mode: objstore.ModeNone, Accept: storetest.Accepted("emulator"),
				Only: []string{"Buckets", "Versions", "Protection"},
				Open: func(t *testing.T) objstore.Store {
					return openS3(t, startEmulator(t, dialect).Env(), s3store.Config{AllowUnencrypted: true})
				}})
		})
	}
}

func TestMinIO(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "minio", Accept: storetest.Accepted("minio"),
		Open: func(t *testing.T) objstore.Store {
			return openS3(t, storetest.StartMinIO(t).Env(), s3store.Config{})
		}})
}

func TestMinIOTLS(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "miniotls", Accept: storetest.Accepted("minio"),
		Only: []string{"Buckets", "Objects", "Metadata", "Ranges", "Copy", "Delete"},
		Open: func(t *testing.T) objstore.Store {
			s := storetest.StartMinIOTLS(t)
			return openS3(t, s.Env(), s3store.Config{CAFile: s.CAFile})
		}})
}

// keyedGroups are the checks in which the mode of encryption has a hand.
var keyedGroups = []string{"Objects", "Metadata", "Ranges", "Versions", "Conditions", "Writers", "Copy", "CopyRange", "Protection"}

func TestMinIOWithKMSKey(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "miniokms", Mode: objstore.ModeSSEKMS, Accept: storetest.Accepted("minio"), Only: keyedGroups,
		Open: func(t *testing.T) objstore.Store {
			rule := s3store.Rule{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "demo-key"}}
			return openS3(t, storetest.StartMinIO(t).Env(), s3store.Config{Rules: []s3store.Rule{rule}})
		}})
}

func TestMinIOWithCustomerKey(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "miniossec", Mode: objstore.ModeSSEC, Accept: storetest.Accepted("minio"), Only: keyedGroups,
		Open: func(t *testing.T) objstore.Store {
			s := storetest.StartMinIOTLS(t)
			rule := s3store.Rule{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEC}}
			return openS3(t, s.Env(), s3store.Config{CAFile: s.CAFile, CustomerKeys: customerKeys(t), Rules: []s3store.Rule{rule}})
		}})
}

func TestVersityGW(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "versitygw", Mode: objstore.ModeNone, Accept: storetest.Accepted("versitygw"),
		Open: func(t *testing.T) objstore.Store {
			return openS3(t, storetest.StartVersityGW(t).Env(), s3store.Config{AllowUnencrypted: true})
		}})
}

func TestRadosGW(t *testing.T) {
	storetest.Run(t, storetest.Config{Name: "radosgw", Mode: objstore.ModeSSEKMS, Accept: storetest.Accepted("radosgw"),
		Open: func(t *testing.T) objstore.Store {
			rule := s3store.Rule{Pattern: "*", Encryption: objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: "demo-key"}}
			return openS3(t, storetest.StartRadosGW(t).Env(), s3store.Config{Rules: []s3store.Rule{rule}})
		}})
}

func TestResizeOverEmulator(t *testing.T) {
	// Everything that a decorator has a hand in; the rest is passed through.
	differences := storetest.Accepted("emulator")
	differences.NoChecksum = "The decorator changes the bytes: the store keeps a checksum of others."
	storetest.Run(t, storetest.Config{Name: "resize", Accept: differences,
		Only: []string{"Objects", "Metadata", "Ranges", "Versions", "Listing", "Races", "Writers", "Cancel", "Copy", "CopyRange", "Protection", "Uploads"},
		Open: func(t *testing.T) objstore.Store {
			return storetest.Resize(openS3(t, startEmulator(t, "aws").Env(), s3store.Config{}))
		}})
}
