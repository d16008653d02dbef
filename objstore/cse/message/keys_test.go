package message

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// However a key or what holds one is printed, logged or marshalled, nothing of
// the key is in it.
func TestSecretsAreNotPrinted(t *testing.T) {
	key := testKey(Committed)
	s, err := NewSealer(key, Context{}, testEDKs, 16)
	require.NoError(t, err)
	h, err := ParseHeader(s.Header())
	require.NoError(t, err)
	o, err := NewOpener(h, key, Context{})
	require.NoError(t, err)
	inner := struct{ key DataKey }{key}
	type shown struct{ Key DataKey }

	var out strings.Builder
	for _, v := range []any{key, &key, inner, &inner, shown{key}, []DataKey{key},
		map[string]DataKey{"k": key}, s, o, &s.keys, struct{ s *Sealer }{s}, struct{ o *Opener }{o}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "v", v)
		if p, err := json.Marshal(v); err == nil {
			out.Write(p)
		}
	}
	_, err = NewOpener(h, NewDataKey(key.Bytes()[:31]), Context{})
	require.Error(t, err)
	out.WriteString(err.Error())
	wrong := bytes.Clone(key.Bytes())
	wrong[0] ^= 1
	_, err = NewOpener(h, NewDataKey(wrong), Context{})
	require.Error(t, err)
	out.WriteString(err.Error())

	for name, secret := range map[string][]byte{"data key": key.Bytes(), "key of the path binding": s.keys.bind()} {
		for _, part := range [][]byte{secret[:4], secret[8:12], secret[len(secret)-4:]} {
			for form, text := range map[string]string{
				"hex":     hex.EncodeToString(part),
				"HEX":     strings.ToUpper(hex.EncodeToString(part)),
				"decimal": strings.Trim(fmt.Sprint(part), "[]"),
				"Go":      strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte"), "{}"),
				"hexes":   fmt.Sprintf("% x", part),
				"raw":     string(part),
			} {
				require.False(t, strings.Contains(out.String(), text), "%s is printed, as %s", name, form)
			}
		}
	}
	require.Contains(t, out.String(), "(data key)")
	require.NotContains(t, out.String(), "GCM=&", "the key schedule is a secret as well")
	require.NotContains(t, out.String(), "GCM{")
}

func TestDataKeyIsACopy(t *testing.T) {
	p := []byte("0123456789abcdef")
	k := NewDataKey(p)
	p[0] = 'x'
	require.Equal(t, "0123456789abcdef", string(k.Bytes()))
	require.Nil(t, DataKey{}.Bytes())
	for _, s := range allSuites() {
		a, b := GenerateDataKey(s), GenerateDataKey(s)
		require.Len(t, a.Bytes(), s.KeyBytes())
		require.NotEqual(t, a.Bytes(), b.Bytes())
	}
}

func TestHeaderNeedsItsDataKey(t *testing.T) {
	for _, s := range allSuites() {
		h, err := ParseHeader(other{suite: s, frame: 16}.write(t, nil))
		require.NoError(t, err)
		key := bytes.Clone(testKey(s).Bytes())
		for _, n := range []int{0, len(key) - 1, len(key) + 1} {
			_, err := NewOpener(h, NewDataKey(make([]byte, n)), Context{})
			require.ErrorIs(t, err, Malformed, "%s with %d bytes", s, n)
		}
		key[0] ^= 1
		_, err = NewOpener(h, NewDataKey(key), Context{})
		require.ErrorIs(t, err, Unauthentic)
		if s.Committing() {
			require.ErrorContains(t, err, "commits to another data key")
		}
		_, err = NewOpener(h, testKey(s), Context{})
		require.NoError(t, err)
	}
}

// The MAC of a path is one for each message, bucket and key, and where the
// bucket ends makes a difference.
func TestBinding(t *testing.T) {
	seal := func() (*Sealer, *Opener) {
		s, err := NewSealer(testKey(Committed), Context{}, testEDKs, 16)
		require.NoError(t, err)
		h, err := ParseHeader(s.Header())
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(Committed), Context{})
		require.NoError(t, err)
		return s, o
	}
	s, o := seal()
	_, another := seal()
	text := s.Binding("bucket", "dir/file")
	require.Len(t, text, 44)
	again, err := o.Binding("bucket", "dir/file")
	require.NoError(t, err)
	require.Equal(t, text, again)
	require.NoError(t, o.CheckBinding("bucket", "dir/file", text))

	for name, err := range map[string]error{
		"another bucket":   o.CheckBinding("bucket2", "dir/file", text),
		"another key":      o.CheckBinding("bucket", "dir/file2", text),
		"the border moved": o.CheckBinding("bucketdir", "/file", text),
		"another message":  another.CheckBinding("bucket", "dir/file", text),
		"none":             o.CheckBinding("bucket", "dir/file", ""),
		"cut":              o.CheckBinding("bucket", "dir/file", text[:40]),
		"no base64":        o.CheckBinding("bucket", "dir/file", "!"+text[1:]),
		"longer":           o.CheckBinding("bucket", "dir/file", text+"AAAA"),
		"with a line feed": o.CheckBinding("bucket", "dir/file", text+"\n"),
		"without its end":  o.CheckBinding("bucket", "dir/file", text[:43]),
	} {
		require.ErrorIs(t, err, Unauthentic, name)
	}
	for _, suite := range []Suite{0x0078, 0x0178, 0x0378} {
		h, err := ParseHeader(other{suite: suite, frame: 16}.write(t, nil))
		require.NoError(t, err)
		o, err := NewOpener(h, testKey(suite), Context{})
		require.NoError(t, err)
		_, err = o.Binding("bucket", "key")
		require.ErrorIs(t, err, Unsupported)
		require.ErrorIs(t, o.CheckBinding("bucket", "key", text), Unsupported)
	}
}
