package storetest_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
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

// modeTarget is a server and what it can do.
type modeTarget struct {
	name string
	// modes are what it has; of the others it is seen that they are refused.
	modes []objstore.Mode
	// lacks are verbs that it does not do in a mode that it has, and why.
	lacks map[objstore.Mode]map[string]string
	// start returns what a client needs to know; keys are those of its KMS.
	start func(t *testing.T) (env []string, caFile string, keys []string)
}

var allModes = []objstore.Mode{objstore.ModeSSES3, objstore.ModeSSEKMS, objstore.ModeDSSEKMS, objstore.ModeSSEC}

// startModes starts an emulator with two KMS keys.
func startModes(dialect string) func(t *testing.T) (env []string, caFile string, keys []string) {
	return func(t *testing.T) (env []string, caFile string, keys []string) {
		e, err := emulator.New(emulator.Config{Dir: storetest.DataDir(t), Dialect: dialect, AllowSSECOverHTTP: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		if err := e.Listen("127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		for _, alias := range []string{"alias/first", "alias/second"} {
			arn, err := e.CreateKMSKey(alias)
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, arn)
		}
		return e.Env(), "", keys
	}
}

// TestModes runs all verbs of all modes on all servers, and keeps the page that
// shows the outcome.
func TestModes(t *testing.T) {
	server := func(start func(testing.TB) *storetest.Server, keyIDs ...string) func(t *testing.T) (env []string, caFile string, keys []string) {
		return func(t *testing.T) (env []string, caFile string, keys []string) {
			srv := start(t)
			return srv.Env(), srv.CAFile, keyIDs
		}
	}
	targets := []modeTarget{
		// The only server here with two layers of KMS encryption, and with
		// two keys of a KMS.
		{name: "emulator aws", modes: allModes, start: startModes("aws")},
		{name: "emulator scality", modes: allModes[:2], start: startModes("scality")},
		{name: "emulator scality74", modes: allModes[:1], start: startModes("scality74")},
		{name: "MinIO http", modes: allModes[:2], start: server(storetest.StartMinIO, "demo-key")}, // SSE-C only over https
		{name: "MinIO https", modes: []objstore.Mode{objstore.ModeSSES3, objstore.ModeSSEKMS, objstore.ModeSSEC}, start: server(storetest.StartMinIOTLS, "demo-key")},
		{name: "versitygw", start: server(storetest.StartVersityGW, "no-key")},
		{
			name: "radosgw", modes: []objstore.Mode{objstore.ModeSSEKMS, objstore.ModeSSEC}, start: server(storetest.StartRadosGW, "demo-key", "second-key"),
			lacks: map[objstore.Mode]map[string]string{
				objstore.ModeSSEKMS: {"mkdir sets the bucket default": "buckets have no default encryption"},
			},
		},
	}
	tables := map[string]string{}
	for _, target := range targets {
		var rows []storetest.ModeRow
		modes := 0
		ran := t.Run(target.name, func(t *testing.T) {
			env, caFile, keys := target.start(t)
			for _, mode := range allModes {
				t.Run(string(mode), func(t *testing.T) {
					cfg := storetest.ModesConfig{Mode: mode, Cannot: !slices.Contains(target.modes, mode), Accept: target.lacks[mode]}
					ring := customerKeys(t)
					switch mode {
					case objstore.ModeSSEKMS, objstore.ModeDSSEKMS:
						cfg.Keys = keys
					case objstore.ModeSSEC:
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
					rows = append(rows, storetest.RunModes(t, cfg)...)
					modes++
				})
			}
		})
		if ran && modes == len(allModes) { // not skipped, nor a part of it chosen by -run
			tables[target.name] = storetest.ModeTable(rows)
			t.Logf("%s\n%s", target.name, tables[target.name])
		}
	}
	old, err := os.ReadFile(matrixPage)
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	page.WriteString(matrixHead)
	for _, target := range targets {
		table, ran := tables[target.name]
		if !ran {
			_, table, _ = strings.Cut(string(old), matrixServer(target.name))
			table, _, _ = strings.Cut(table, matrixServer(""))
		}
		page.WriteString(matrixServer(target.name) + table)
	}
	if page.String() == string(old) {
		return
	}
	if err := os.WriteFile(matrixPage, []byte(page.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Errorf("e2e/MATRIX.md was not what this run has seen; it is now: look at the difference and commit it")
}

// matrixPage is written by the run, and a run that finds it different fails.
// Servers that did not run keep the section that they have.
const (
	matrixPage = "../../e2e/MATRIX.md"
	matrixHead = `# Every mode, every verb, every server

Written by ` + "`TestModes`" + ` (objstore/storetest), which runs what the tables say; a run with another outcome writes the page
anew and fails. "works" was seen to work, encryption at the end included; "refused as it must" was an error of the right
kind; "server cannot" was refused before any data was sent; "-" has no meaning there.
`
)

// matrixServer begins a server's section, and any for "".
func matrixServer(name string) string {
	if name == "" {
		return "\n## "
	}
	return "\n## " + name + "\n\n"
}
