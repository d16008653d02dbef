package storetest_test

import (
	"bytes"
	"testing"

	"coffer/objstore"
	"coffer/objstore/emulator"
	"coffer/objstore/s3store"
	"coffer/objstore/storetest"
)

// customerKeys are the two keys of the SSE-C tests.
func customerKeys(t *testing.T) []s3store.CustomerKey {
	t.Helper()
	var keys []s3store.CustomerKey
	for _, c := range []byte{'a', 'b'} {
		k, err := s3store.NewCustomerKey(bytes.Repeat([]byte{c}, 32))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// runModes runs all verbs of a mode against srv.
func runModes(t *testing.T, srv *storetest.Server, cfg storetest.ModesConfig) {
	t.Helper()
	runModesOn(t, srv.Name, srv.Env(), srv.CAFile, cfg)
}

func runModesOn(t *testing.T, server string, env []string, caFile string, cfg storetest.ModesConfig) {
	t.Helper()
	ring := customerKeys(t)
	cfg.Server = server
	if cfg.Mode == objstore.ModeSSEC {
		cfg.Keys = []string{ring[0].MD5(), ring[1].MD5()}
	}
	cfg.Open = func(t *testing.T, policy objstore.Encryption, keys ...int) objstore.Store {
		c := s3store.Config{CAFile: caFile, Rules: []s3store.Rule{{Pattern: "*", Encryption: policy}}}
		if policy.Mode == objstore.ModeNone {
			c.AllowUnencrypted = true
		}
		for _, i := range keys {
			c.CustomerKeys = append(c.CustomerKeys, ring[i])
		}
		return openS3(t, env, c)
	}
	t.Logf("\n%s", storetest.ModeTable(storetest.RunModes(t, cfg)))
}

func TestModesMinIO(t *testing.T) {
	srv := storetest.StartMinIO(t)
	t.Run("SSE-S3", func(t *testing.T) { runModes(t, srv, storetest.ModesConfig{Mode: objstore.ModeSSES3}) })
	t.Run("SSE-KMS", func(t *testing.T) {
		runModes(t, srv, storetest.ModesConfig{Mode: objstore.ModeSSEKMS, Keys: []string{"demo-key"}})
	})
	t.Run("DSSE-KMS", func(t *testing.T) {
		runModes(t, srv, storetest.ModesConfig{Mode: objstore.ModeDSSEKMS, Keys: []string{"demo-key"}, Cannot: true})
	})
	t.Run("SSE-C", func(t *testing.T) { // only over https
		runModes(t, srv, storetest.ModesConfig{Mode: objstore.ModeSSEC, Cannot: true})
	})
}

func TestModesMinIOTLS(t *testing.T) {
	srv := storetest.StartMinIOTLS(t)
	runModes(t, srv, storetest.ModesConfig{Mode: objstore.ModeSSEC})
}

func TestModesVersityGW(t *testing.T) {
	srv := storetest.StartVersityGW(t)
	for _, mode := range []objstore.Mode{objstore.ModeSSES3, objstore.ModeSSEKMS, objstore.ModeDSSEKMS, objstore.ModeSSEC} {
		t.Run(string(mode), func(t *testing.T) {
			cfg := storetest.ModesConfig{Mode: mode, Cannot: true}
			if mode == objstore.ModeSSEKMS || mode == objstore.ModeDSSEKMS {
				cfg.Keys = []string{"demo-key"}
			}
			runModes(t, srv, cfg)
		})
	}
}

// TestModesEmulator runs every mode: the emulator is the only server here that
// has two layers of KMS encryption, and two keys of a KMS.
func TestModesEmulator(t *testing.T) {
	e, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), AllowSSECOverHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, alias := range []string{"alias/first", "alias/second"} {
		arn, err := e.CreateKMSKey(alias)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, arn)
	}
	for _, mode := range []objstore.Mode{objstore.ModeSSES3, objstore.ModeSSEKMS, objstore.ModeDSSEKMS, objstore.ModeSSEC} {
		t.Run(string(mode), func(t *testing.T) {
			cfg := storetest.ModesConfig{Mode: mode}
			if mode == objstore.ModeSSEKMS || mode == objstore.ModeDSSEKMS {
				cfg.Keys = keys
			}
			runModesOn(t, "emulator", e.Env(), "", cfg)
		})
	}
}
