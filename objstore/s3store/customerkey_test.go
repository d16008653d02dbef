package s3store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// customerKey is a key of 32 times c.
func customerKey(t testing.TB, c byte) CustomerKey {
	t.Helper()
	k, err := NewCustomerKey(bytes.Repeat([]byte{c}, 32))
	require.NoError(t, err)
	return k
}

func TestCustomerKeysAreNeverPrinted(t *testing.T) {
	raw := []byte("this-is-a-secret-of-32-bytes-!!!")
	k, err := NewCustomerKey(raw)
	require.NoError(t, err)
	type inside struct {
		shown  CustomerKey
		hidden []CustomerKey
	}
	v := inside{k, []CustomerKey{k}}
	cfg := Config{CustomerKeys: []CustomerKey{k}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%U", "%b"} {
		fmt.Fprintf(&out, verb, k)
		fmt.Fprintf(&out, verb, &k)
		fmt.Fprintf(&out, verb, v)
		fmt.Fprintf(&out, verb, cfg)
		fmt.Fprintf(&out, verb, newKeyring(cfg.CustomerKeys))
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "key", k, "config", cfg, "inside", v)
	}
	text, err := json.Marshal(map[string]any{"k": k, "keys": cfg.CustomerKeys})
	require.NoError(t, err)
	out.Write(text)
	var numbers []string
	for _, c := range raw[:4] {
		numbers = append(numbers, fmt.Sprint(c))
	}
	for _, secret := range []string{string(raw[:6]), base64.StdEncoding.EncodeToString(raw)[:8], hex.EncodeToString(raw[:4]),
		strings.ToUpper(hex.EncodeToString(raw[:4])), strings.Join(numbers, " ")} {
		require.NotContains(t, out.String(), secret)
	}
	require.Contains(t, out.String(), k.MD5(), "the MD5 names it")
}

func TestCustomerKeyHas32Bytes(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33, 44} {
		_, err := NewCustomerKey(make([]byte, n))
		require.Error(t, err, "%d bytes", n)
	}
	raw := bytes.Repeat([]byte{7}, 32)
	k, err := NewCustomerKey(raw)
	require.NoError(t, err)
	clear(raw)
	require.Equal(t, byte(7), (*k.secret).raw[0], "the caller may overwrite its copy")
}

func TestKeyringForgetsRatherThanGrows(t *testing.T) {
	r := newKeyring([]CustomerKey{customerKey(t, 'a')})
	for i := range maxRemembered + 100 {
		r.remember(objectID{"b", fmt.Sprint(i), ""}, keyChoice{"etag", "md5"})
	}
	require.Len(t, r.known, maxRemembered)
	id := objectID{"b", fmt.Sprint(maxRemembered + 99), ""}
	md5, ok := r.recall(id, "etag")
	require.True(t, ok)
	require.Equal(t, "md5", md5)
	_, ok = r.recall(id, "another")
	require.False(t, ok)
	_, ok = r.recall(id, "")
	require.True(t, ok)
}

func TestKMSKeysAreComparedLeniently(t *testing.T) {
	const arn = "arn:aws:kms:eu-west-1:123456789012:key/0aa"
	for _, c := range []struct {
		want, got string
		verdict   verdict
	}{
		{"", arn, asWanted}, {"0aa", "0aa", asWanted}, {"0aa", arn, asWanted}, {arn, arn, asWanted}, {arn, "0aa", asWanted},
		{"demo-key", "arn:aws:kms:demo-key", asWanted}, {"demo-key", "arn:aws:kms:other", otherKey},
		{"0ab", arn, otherKey}, {"arn:aws:kms:us-east-1:123456789012:key/0aa", arn, otherKey},
		{"alias/mine", arn, keyUnclear}, {"arn:aws:kms:eu-west-1:123456789012:alias/mine", arn, keyUnclear},
		{"alias/mine", "arn:aws:kms:eu-west-1:123456789012:alias/mine", asWanted}, {"0aa", "", keyUnclear},
	} {
		require.Equal(t, c.verdict, sameKMSKey(c.want, c.got), "%q and %q", c.want, c.got)
	}
}
