package message

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// other writes what Coffer only reads: all suites, a single block, signatures,
// and a full frame as the final one.
type other struct {
	suite     Suite
	frame     int64 // 0: a single block
	fullFinal bool  // the last full frame is the final one
	context   map[string]string
	required  Context // authenticated, not stored
	// signatureBytes is the length to which signatures are pinned, as most
	// SDKs do; 0 takes what comes.
	signatureBytes int
}

// testKey is the data key of the tests for this suite.
func testKey(s Suite) DataKey {
	key := make([]byte, s.KeyBytes())
	for i := range key {
		key[i] = byte(0xa0 + i)
	}
	return NewDataKey(key)
}

var testEDKs = []EDK{{"namespace", "name", []byte("of the data key")}}

// pattern is a plaintext of n bytes.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

func (w other) write(t testing.TB, plain []byte) []byte {
	t.Helper()
	row := suites[w.suite]
	h := &Header{Suite: w.suite, MessageID: make([]byte, row.idBytes()), EDKs: testEDKs, Frame: w.frame, iv: make([]byte, ivBytes)}
	rand.Read(h.MessageID)
	context := Context{}
	for k, v := range w.context {
		context.pairs = append(context.pairs, pair{k, v})
	}
	var signer *ecdsa.PrivateKey
	if row.curve != nil {
		var err error
		signer, err = ecdsa.GenerateKey(row.curve, rand.Reader)
		require.NoError(t, err)
		public, err := signer.PublicKey.Bytes()
		require.NoError(t, err)
		n := len(public) / 2 // 4, x, y
		compressed := append([]byte{2 + public[2*n]&1}, public[1:1+n]...)
		context.pairs = append(context.pairs, pair{publicKeyName, base64.StdEncoding.EncodeToString(compressed)})
	}
	var err error
	h.Context, err = context.checked()
	require.NoError(t, err)
	k, err := derive(h.Suite, h.MessageID, testKey(w.suite))
	require.NoError(t, err)
	msg := w.header(h, k)
	b := &body{keys: k, id: h.MessageID}
	if w.frame == 0 {
		iv := append(make([]byte, 8), 0, 0, 0, 1)
		msg = binary.BigEndian.AppendUint64(append(msg, iv...), uint64(len(plain)))
		msg = k.aead().Seal(msg, iv, plain, *b.aad(blockAAD, 1, len(plain)))
	} else {
		seq := uint32(1)
		for ; int64(len(plain)) > w.frame || !w.fullFinal && int64(len(plain)) == w.frame; seq++ {
			msg = b.seal(msg, seq, plain[:w.frame], false)
			plain = plain[w.frame:]
		}
		msg = b.seal(msg, seq, plain, true)
	}
	if signer == nil {
		return msg
	}
	hash := row.signature.New()
	hash.Write(msg)
	for {
		signature, err := ecdsa.SignASN1(rand.Reader, signer, hash.Sum(nil))
		require.NoError(t, err)
		if w.signatureBytes == 0 || len(signature) == w.signatureBytes {
			return appendField(msg, signature)
		}
	}
}

// header appends tag and, in format 1, what differs from format 2.
func (w other) header(h *Header, k keys) []byte {
	h.commitment = k.commitment
	raw := appendHeader(nil, h)
	if w.suite.Format() == 1 {
		tail := []byte{contentFrames, 0, 0, 0, 0, ivBytes}
		tail = append(tail, raw[len(raw)-4:]...)
		raw = append(append([]byte{1, 0x80}, raw[1:len(raw)-5]...), tail...)
	}
	if w.frame == 0 {
		at := len(raw) - 5
		if w.suite.Format() == 1 {
			at = len(raw) - 10
		} else {
			at -= commitmentBytes
		}
		raw[at] = contentBlock
	}
	h.raw, h.signed = raw, len(raw)
	tag := k.aead().Seal(nil, h.iv, nil, headerAAD(h, w.required))
	if w.suite.Format() == 1 {
		raw = append(raw, h.iv...)
	}
	return append(raw, tag...)
}

// own writes a message as Coffer does.
func own(t testing.TB, frame int64, plain []byte) []byte {
	t.Helper()
	s, err := NewSealer(testKey(Committed), Context{}, testEDKs, frame)
	require.NoError(t, err)
	return sealAll(t, s, plain)
}

func sealAll(t testing.TB, s *Sealer, plain []byte) []byte {
	t.Helper()
	msg := s.Header()
	var err error
	for i := int64(0); int64(len(plain)) >= s.header.Frame; i++ {
		msg, err = s.Seal(msg, i, plain[:s.header.Frame])
		require.NoError(t, err)
		plain = plain[s.header.Frame:]
	}
	msg, err = s.SealFinal(msg, plain)
	require.NoError(t, err)
	return msg
}

// decrypt reads a whole message in the way of a reader.
func decrypt(msg []byte, key DataKey, required Context) ([]byte, error) {
	h, err := ParseHeader(msg)
	if err != nil {
		return nil, err
	}
	o, err := NewOpener(h, key, required)
	if err != nil {
		return nil, err
	}
	return openAll(o, msg)
}

func openAll(o *Opener, msg []byte) ([]byte, error) {
	plain, end, err := openBody(o, msg)
	if err != nil || !o.header.Suite.Signed() {
		return plain, err
	}
	v, err := o.Verifier()
	if err != nil {
		return nil, err
	}
	_, _ = v.Write(msg[o.header.Bytes():end])
	if err := v.Verify(msg[end:]); err != nil {
		return nil, err
	}
	return plain, nil
}

func openBody(o *Opener, msg []byte) (plain []byte, end int64, err error) {
	if o.header.Frame == 0 {
		plain, err := o.OpenBlock(nil, msg[o.header.Bytes():], 64<<20)
		return plain, o.header.Bytes() + BlockOverhead + int64(len(plain)), err
	}
	l, last, err := o.Locate(nil, int64(len(msg)), msg[o.header.Bytes():])
	if err != nil {
		return nil, 0, err
	}
	for i := range l.Full {
		at := l.Offset(i)
		if plain, err = o.Open(plain, i, msg[at:at+l.Bytes(i)]); err != nil {
			return nil, 0, err
		}
	}
	return append(plain, last...), l.Stored() - l.Footer, nil
}

// allSuites in the order of their numbers.
func allSuites() []Suite {
	return []Suite{0x0014, 0x0046, 0x0078, 0x0114, 0x0146, 0x0178, 0x0214, 0x0346, 0x0378, 0x0478, 0x0578}
}

func TestEverySuiteIsReadBack(t *testing.T) {
	required, err := NewContext(map[string]string{"required": "not stored"})
	require.NoError(t, err)
	require.Len(t, suites, len(allSuites()))
	for _, s := range allSuites() {
		for _, frame := range []int64{0, 1, 16, 512} {
			sizes := []int{0, 1, 15, 16, 17, 32, 512, 1024}
			if s.Signed() {
				sizes = []int{0, 16, 17, 1024} // signing takes its time
			}
			for _, size := range sizes {
				for _, fullFinal := range []bool{false, true} {
					plain := pattern(size)
					w := other{suite: s, frame: frame, fullFinal: fullFinal, context: map[string]string{"b": "1", "a": ""}, required: required}
					msg := w.write(t, plain)
					got, err := decrypt(msg, testKey(s), required)
					require.NoError(t, err, "%+v, %d bytes", w, size)
					require.True(t, bytes.Equal(plain, got), "%+v, %d bytes", w, size)
					_, err = decrypt(msg, testKey(s), Context{})
					require.ErrorIs(t, err, Unauthentic, "without the required context")
				}
			}
		}
	}
}
