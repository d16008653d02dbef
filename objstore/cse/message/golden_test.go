package message

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The golden messages were written once and are read for ever. To add one,
// give it a row and run the test with -make-golden; those that are there are
// never written again.
var makeGolden = flag.Bool("make-golden", false, "write the golden messages that are missing")

type golden struct {
	name string
	size int
	// other is how it was written; by Coffer's own writer where its suite is 0.
	other  other
	frame  int64  // of Coffer's writer
	padded string // "context", "data keys"
	// binding to bucket "bucket" and key "dir/file", for Coffer's writer.
	binding string
}

var goldens = []golden{
	{name: "own-empty", size: 0, frame: 65536, padded: "context", binding: "XSLpG1LdTW1BrI0EJx4OqAPo7IDliFSPq2tlca/e0To="},
	{name: "own-100", size: 100, frame: 65536, padded: "context", binding: "rB7aL/Sgrw3t5wm4qlRxWpQ+JImWh37Nj2Tf6gWaz3A="},
	{name: "own-65537", size: 65537, frame: 65536, padded: "context", binding: "BkSjjBI/dpl3UFg0pDMC03Jzb5jkWynw16vsWG4KxMo="},
	{name: "own-1024-of-512", size: 1024, frame: 512, padded: "data keys", binding: "iRZCaQPWA3Lv0h/SND07DN65HbCOfxv4muo2sPJEUz0="},
	{name: "own-33-of-16-not-padded", size: 33, frame: 16, binding: "pbIXwHJqa/Rzel8JubC6jJFVqhg5sIWQIGjBdcjv4/g="},
	{name: "0478-full-final-frame", size: 512, other: other{suite: Committed, frame: 256, fullFinal: true, context: map[string]string{"purpose": "test", "é": "ü"}}},
	{name: "0478-block", size: 100, other: other{suite: Committed}},
	{name: "0578-like-python", size: 4096, other: other{suite: CommittedSigned, frame: 4096, signatureBytes: 103}},
	{name: "0578-signature-of-any-length", size: 10, other: other{suite: CommittedSigned, frame: 4096}},
	{name: "0578-block", size: 10, other: other{suite: CommittedSigned}},
	{name: "0014", size: 100, other: other{suite: 0x0014, frame: 32}},
	{name: "0046", size: 100, other: other{suite: 0x0046, frame: 64, context: map[string]string{"k": "v"}}},
	{name: "0078", size: 64, other: other{suite: 0x0078, frame: 64}},
	{name: "0114", size: 0, other: other{suite: 0x0114, frame: 1024}},
	{name: "0146-block", size: 33, other: other{suite: 0x0146}},
	{name: "0178", size: 3, other: other{suite: 0x0178, frame: 1}},
	{name: "0214", size: 100, other: other{suite: 0x0214, frame: 64, signatureBytes: 71}},
	{name: "0346", size: 100, other: other{suite: 0x0346, frame: 100, fullFinal: true}},
	{name: "0378-block", size: 100, other: other{suite: 0x0378}},
}

// seal writes the message with this ID as a Sealer does.
func (g golden) seal(t *testing.T, id []byte) (msg []byte, binding string) {
	t.Helper()
	c, err := NewContext(map[string]string{"coffer-vol": "0123456789abcdef"})
	require.NoError(t, err)
	edks := testEDKs
	switch g.padded {
	case "context":
		c, err = PadContext(c, edkBytes(edks))
		require.NoError(t, err)
	case "data keys":
		edks = PadEDKs(c, edks)
	}
	k, err := derive(Committed, id, testKey(Committed))
	require.NoError(t, err)
	s := newSealer(&Header{Suite: Committed, MessageID: id, Context: c, EDKs: edks, Frame: g.frame}, k)
	return sealAll(t, s, pattern(g.size)), s.Binding("bucket", "dir/file")
}

// Every message that was ever written is read, and Coffer's own are written
// in the same way, to the byte.
func TestGoldenMessages(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			name := filepath.Join("testdata", "golden", g.name+".esdk")
			ours := g.other.suite == 0
			suite := g.other.suite
			if ours {
				suite = Committed
			}
			if _, err := os.Stat(name); os.IsNotExist(err) && *makeGolden {
				msg := g.other.write
				if ours {
					msg = func(t testing.TB, _ []byte) []byte {
						s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 1)
						require.NoError(t, err)
						msg, binding := g.seal(t.(*testing.T), s.header.MessageID)
						t.Logf("binding: %q", binding)
						return msg
					}
				}
				require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
				require.NoError(t, os.WriteFile(name, msg(t, pattern(g.size)), 0o666))
			}
			msg, err := os.ReadFile(name)
			require.NoError(t, err)
			got, err := decrypt(msg, testKey(suite), Context{})
			require.NoError(t, err)
			require.True(t, bytes.Equal(pattern(g.size), got))
			if !ours {
				return
			}
			h, err := ParseHeader(msg)
			require.NoError(t, err)
			again, binding := g.seal(t, h.MessageID)
			require.True(t, bytes.Equal(msg, again), "written otherwise than before")
			require.Equal(t, g.binding, binding)
			o, err := NewOpener(h, testKey(Committed), Context{})
			require.NoError(t, err)
			require.NoError(t, o.CheckBinding("bucket", "dir/file", g.binding))
			if g.padded != "" {
				require.Equal(t, int64(HeaderUnit), h.Bytes())
			}
		})
	}
}

// No golden message is without a row.
func TestGoldenMessagesAreAllRead(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join("testdata", "golden"))
	require.NoError(t, err)
	rows := map[string]bool{}
	for _, g := range goldens {
		rows[g.name+".esdk"] = true
	}
	require.Len(t, entries, len(rows))
	for _, e := range entries {
		require.True(t, rows[e.Name()], e.Name())
	}
}
