package message

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// withContext puts a header together whose tag is right for these entries.
func withContext(t *testing.T, s Suite, pairs ...pair) []byte {
	t.Helper()
	c, err := Context{pairs}.checked()
	require.NoError(t, err)
	h := &Header{Suite: s, MessageID: make([]byte, suites[s].idBytes()), Context: c, EDKs: testEDKs, Frame: 16, iv: make([]byte, ivBytes)}
	k, err := derive(s, h.MessageID, testKey(s))
	require.NoError(t, err)
	return other{suite: s, frame: 16}.header(h, k)
}

func TestKeysOfSignaturesThatAreRefused(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	uncompressed, err := key.PublicKey.Bytes()
	require.NoError(t, err)
	compressed := append([]byte{2 + uncompressed[96]&1}, uncompressed[1:49]...)
	text := base64.StdEncoding.EncodeToString
	off := bytes.Clone(compressed)
	for x, _ := elliptic.UnmarshalCompressed(elliptic.P384(), off); x != nil; x, _ = elliptic.UnmarshalCompressed(elliptic.P384(), off) {
		off[48]++
	}
	for _, tt := range []struct {
		name  string
		suite Suite
		pairs []pair
		text  string
	}{
		{"none", CommittedSigned, nil, "no key to verify"},
		{"no base64", CommittedSigned, []pair{{publicKeyName, "!"}}, "not base64"},
		{"empty", CommittedSigned, []pair{{publicKeyName, ""}}, "no point of P-384"},
		{"not on the curve", CommittedSigned, []pair{{publicKeyName, text(off)}}, "no point of P-384"},
		{"not compressed", CommittedSigned, []pair{{publicKeyName, text(uncompressed)}}, "no point of P-384"},
		{"of another curve", 0x0214, []pair{{publicKeyName, text(compressed)}}, "no point of P-256"},
		{"without a signature", Committed, []pair{{publicKeyName, text(compressed)}}, "suite 0x0478 has no signature"},
		{"without a signature, format 1", 0x0178, []pair{{publicKeyName, text(compressed)}}, "suite 0x0178 has no signature"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHeader(withContext(t, tt.suite, tt.pairs...))
			require.NoError(t, err)
			_, err = NewOpener(h, testKey(tt.suite), Context{})
			require.ErrorIs(t, err, Malformed)
			require.ErrorContains(t, err, tt.text)
		})
	}
	h, err := ParseHeader(withContext(t, CommittedSigned, pair{publicKeyName, text(compressed)}))
	require.NoError(t, err)
	_, err = NewOpener(h, testKey(CommittedSigned), Context{})
	require.NoError(t, err, "what the table starts from")
}

// A signature is verified while the message streams by, in pieces of any
// length.
func TestSignatureOfAStream(t *testing.T) {
	for _, suite := range []Suite{0x0214, 0x0346, 0x0378, CommittedSigned} {
		msg := other{suite: suite, frame: 16}.write(t, pattern(100))
		_, _, footer := pieces(t, msg)
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(suite), Context{})
		require.NoError(t, err)
		body := msg[h.Bytes() : len(msg)-len(footer)]
		for _, n := range []int{1, 7, 64, len(body)} {
			v, err := o.Verifier()
			require.NoError(t, err)
			for p := range slices.Chunk(body, n) {
				_, _ = v.Write(p)
			}
			require.NoError(t, v.Verify(footer))
		}
		v, err := o.Verifier()
		require.NoError(t, err)
		_, _ = v.Write(body[1:])
		err = v.Verify(footer)
		require.ErrorIs(t, err, Unauthentic)
		require.ErrorContains(t, err, "footer: the signature is not one of the bytes before it")
		for _, bad := range [][]byte{nil, footer[:1], footer[:len(footer)-1], append(bytes.Clone(footer), 0), {0, 0}} {
			err := v.Verify(bad)
			require.Error(t, err)
			typed(t, err)
		}
	}
}

// Bytes within a signature, or before it, can look like the begin of a
// footer. The final frame decides.
func TestFalseFooters(t *testing.T) {
	msg := other{suite: CommittedSigned, frame: 16, signatureBytes: 103}.write(t, pattern(40))
	h, err := ParseHeader(msg)
	require.NoError(t, err)
	o, err := NewOpener(h, testKey(CommittedSigned), Context{})
	require.NoError(t, err)
	want, last, err := o.Locate(nil, int64(len(msg)), msg)
	require.NoError(t, err)
	require.Equal(t, int64(105), want.Footer)

	// Locate does not look into the signature.
	for s := 3; s <= 102; s++ {
		msg := bytes.Clone(msg)
		f := msg[len(msg)-s:]
		binary.BigEndian.PutUint16(f, uint16(s-2))
		f[2] = derSequence
		found, err := o.footers(int64(len(msg)), msg)
		require.NoError(t, err)
		require.Contains(t, found, int64(s))
		require.Contains(t, found, int64(105))
		got, plain, err := o.Locate(nil, int64(len(msg)), msg)
		require.NoError(t, err, "false footer of %d bytes", s)
		require.Equal(t, want, got)
		require.Equal(t, last, plain)
	}

	binary.BigEndian.PutUint16(msg[len(msg)-105:], 102)
	_, _, err = o.Locate(nil, int64(len(msg)), msg)
	require.Error(t, err)
	for i := len(msg) - 110; i < len(msg); i++ {
		msg[i] = 0xff
	}
	_, _, err = o.Locate(nil, int64(len(msg)), msg)
	require.ErrorIs(t, err, Malformed)
	require.ErrorContains(t, err, "no signature at the end")
}

// The longest signatures of the curves fit in what is looked at: DER of two
// numbers with their highest bit set.
func TestLongestFooter(t *testing.T) {
	require.Equal(t, 2+104, suites[CommittedSigned].footerBytes())
	require.Equal(t, 2+72, suites[0x0214].footerBytes())
	require.Zero(t, suites[Committed].footerBytes())
	lengths := map[int64]bool{}
	for range 40 {
		msg := other{suite: 0x0214, frame: 16}.write(t, nil)
		h, err := ParseHeader(msg)
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(0x0214), Context{})
		require.NoError(t, err)
		l, _, err := o.Locate(nil, int64(len(msg)), msg)
		require.NoError(t, err)
		lengths[l.Footer] = true
	}
	require.Greater(t, len(lengths), 1, "lengths that are not pinned differ")
}
