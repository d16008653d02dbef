package keyring_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

func ringOf(t testing.TB, members ...keyring.Member) *keyring.Ring {
	t.Helper()
	r, err := keyring.New(members...)
	require.NoError(t, err)
	return r
}

// encrypt writes a message of one small frame under the keys of a ring.
func encrypt(t testing.TB, r *keyring.Ring, c message.Context, plain string) []byte {
	t.Helper()
	e, err := r.Wrap(t.Context(), c)
	require.NoError(t, err)
	s, err := message.NewSealer(e.Key, e.Context, e.EDKs, 64)
	require.NoError(t, err)
	msg, err := s.SealFinal(s.Header(), []byte(plain))
	require.NoError(t, err)
	return msg
}

// decrypt reads a whole message, and says which key opened it.
func decrypt(r *keyring.Ring, msg []byte, required message.Context) ([]byte, keyring.Key, error) {
	h, err := message.ParseHeader(msg)
	if err != nil {
		return nil, nil, err
	}
	c, err := h.Context.Join(required)
	if err != nil {
		return nil, nil, err
	}
	key, by, err := r.Unwrap(context.Background(), h.Suite, c, h.EDKs)
	if err != nil {
		return nil, nil, err
	}
	o, err := message.NewOpener(h, key, required)
	if err != nil {
		return nil, nil, err
	}
	plain, end, err := openBody(o, msg)
	if err != nil {
		return nil, nil, err
	}
	if h.Suite.Signed() {
		v, err := o.Verifier()
		if err != nil {
			return nil, nil, err
		}
		_, _ = v.Write(msg[h.Bytes():end])
		if err := v.Verify(msg[end:]); err != nil {
			return nil, nil, err
		}
	}
	return plain, by, nil
}

// openBody returns the plaintext, and where the footer begins.
func openBody(o *message.Opener, msg []byte) (plain []byte, end int64, err error) {
	h := o.Header()
	if h.Frame == 0 {
		plain, err = o.OpenBlock(nil, msg[h.Bytes():], 1<<20)
		return plain, h.Bytes() + message.BlockOverhead + int64(len(plain)), err
	}
	l, last, err := o.Locate(nil, int64(len(msg)), msg)
	if err != nil {
		return nil, 0, err
	}
	for i := range l.Full {
		if plain, err = o.Open(plain, i, msg[l.Offset(i):l.Offset(i)+l.Bytes(i)]); err != nil {
			return nil, 0, err
		}
	}
	return append(plain, last...), l.Stored() - l.Footer, nil
}

// rsaKey is made once: it takes a while under the race detector.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func rawAES(t testing.TB, name string, bytes int, seed byte) keyring.Key {
	t.Helper()
	key := make([]byte, bytes)
	for i := range key {
		key[i] = seed + byte(i)
	}
	k, err := keyring.NewRawAES("tests", name, key)
	require.NoError(t, err)
	return k
}

func rawRSA(t testing.TB, name string, p keyring.Padding, public *rsa.PublicKey, private *rsa.PrivateKey) keyring.Key {
	t.Helper()
	k, err := keyring.NewRawRSA("tests", name, p, public, private)
	require.NoError(t, err)
	return k
}

func contextOf(t testing.TB, m map[string]string) message.Context {
	t.Helper()
	c, err := message.NewContext(m)
	require.NoError(t, err)
	return c
}

func TestEveryKeyUnwrapsWhatItWraps(t *testing.T) {
	volume := contextOf(t, map[string]string{"coffer-vol": "v"})
	for _, k := range []keyring.Key{
		rawAES(t, "aes", 16, 1), rawAES(t, "aes", 24, 1), rawAES(t, "aes", 32, 1),
		rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey()), rawRSA(t, "rsa", keyring.OAEPSHA384, nil, rsaKey()),
		rawRSA(t, "rsa", keyring.OAEPSHA512, &rsaKey().PublicKey, rsaKey()),
	} {
		for _, c := range []message.Context{{}, volume} {
			msg := encrypt(t, ringOf(t, keyring.Member{Key: k}), c, "secret")
			h, err := message.ParseHeader(msg)
			require.NoError(t, err)
			require.Equal(t, int64(1024), h.Bytes())
			require.Len(t, h.EDKs, 1)
			require.Equal(t, k.EDKBytes(), h.EDKs[0].Bytes())
			got, by, err := decrypt(ringOf(t, keyring.Member{Key: k, DecryptOnly: true}), msg, message.Context{})
			require.NoError(t, err)
			require.Equal(t, "secret", string(got))
			require.Equal(t, k, by)
		}
	}
}

// A message for several keys is read with any one of them, and with the first
// of those that a ring has.
func TestSeveralRecipients(t *testing.T) {
	aes, old := rawAES(t, "aes", 32, 1), rawAES(t, "old", 32, 2)
	private := rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey())
	public := rawRSA(t, "rsa", keyring.OAEPSHA256, &rsaKey().PublicKey, nil)
	msg := encrypt(t, ringOf(t, keyring.Member{Key: aes}, keyring.Member{Key: old, DecryptOnly: true}, keyring.Member{Key: public}), message.Context{}, "secret")
	h, err := message.ParseHeader(msg)
	require.NoError(t, err)
	require.Len(t, h.EDKs, 2, "none for the key that only decrypts")

	for _, tt := range []struct {
		name          string
		ring          []keyring.Key
		by            keyring.Key
		authenticates bool
	}{
		{"AES", []keyring.Key{aes}, aes, true},
		{"RSA", []keyring.Key{private}, private, false},
		{"both", []keyring.Key{old, aes, private}, aes, true},
		{"both, the other way round", []keyring.Key{private, aes}, private, false},
		{"RSA without its private key", []keyring.Key{public, aes}, aes, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var members []keyring.Member
			for _, k := range tt.ring {
				members = append(members, keyring.Member{Key: k})
			}
			got, by, err := decrypt(ringOf(t, members...), msg, message.Context{})
			require.NoError(t, err)
			require.Equal(t, "secret", string(got))
			require.Equal(t, tt.by, by)
			require.Equal(t, tt.authenticates, by.Authenticates())
		})
	}
}

// A ring for authentic messages does not unwrap by what anybody can wrap under.
func TestAuthenticRings(t *testing.T) {
	aes := rawAES(t, "aes", 32, 1)
	pair := rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey())
	member := func(k keyring.Key) keyring.Member { return keyring.Member{Key: k} }
	both := ringOf(t, member(pair), member(aes))
	strict, err := both.Authentic()
	require.NoError(t, err)
	require.NotEqual(t, both.ID(), strict.ID())
	for name, c := range map[string]struct {
		by      *keyring.Ring
		refused bool
	}{
		"AES":                              {ringOf(t, member(aes)), false},
		"RSA":                              {ringOf(t, member(pair)), true},
		"both":                             {both, false},
		"RSA, and an AES key of that name": {ringOf(t, member(rawAES(t, "aes", 32, 9)), member(pair)), true},
	} {
		msg := encrypt(t, c.by, message.Context{}, "secret")
		_, _, err := decrypt(both, msg, message.Context{})
		require.NoError(t, err, name)
		got, by, err := decrypt(strict, msg, message.Context{})
		if c.refused {
			require.ErrorIs(t, err, objstore.Integrity, name)
			require.ErrorContains(t, err, "raw-rsa tests/rsa: unwrap a data key: ", name)
			require.ErrorContains(t, err, "whoever has its public key can write under it", name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, "secret", string(got))
		require.Equal(t, aes, by)
	}
	// What would be written shall be read.
	_, err = ringOf(t, member(pair)).Authentic()
	require.ErrorContains(t, err, "raw-rsa tests/rsa: whoever has its public key")
	_, err = ringOf(t, member(pair), keyring.Member{Key: aes, DecryptOnly: true}).Authentic()
	require.ErrorContains(t, err, "whoever has its public key")
	_, err = ringOf(t, keyring.Member{Key: pair, DecryptOnly: true}, keyring.Member{Key: aes, DecryptOnly: true}).Authentic()
	require.NoError(t, err)
}

func TestKeysThatDoNotFit(t *testing.T) {
	aes := rawAES(t, "aes", 32, 1)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	pair := rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey())
	msg := encrypt(t, ringOf(t, keyring.Member{Key: aes}, keyring.Member{Key: pair}), message.Context{}, "secret")
	for _, tt := range []struct {
		name string
		key  keyring.Key
		text string
	}{
		{"another name", rawAES(t, "other", 32, 1), `no key of the keyring opens it; it was encrypted for "tests/aes", "tests/rsa"`},
		{"a name that begins in the same way", rawAES(t, "ae", 32, 1), "no key of the keyring"},
		{"another AES key", rawAES(t, "aes", 32, 2), "raw-aes tests/aes: the data key was wrapped by another key of this name"},
		{"an AES key for an RSA key", rawAES(t, "rsa", 32, 1), "no key of the keyring"},
		{"another RSA key", rawRSA(t, "rsa", keyring.OAEPSHA256, nil, other), "raw-rsa tests/rsa: the data key was wrapped by another key of this name"},
		{"another padding", rawRSA(t, "rsa", keyring.OAEPSHA512, nil, rsaKey()), "with another padding"},
		{"the public key", rawRSA(t, "rsa", keyring.OAEPSHA256, &rsaKey().PublicKey, nil), "only its public key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := decrypt(ringOf(t, keyring.Member{Key: tt.key}), msg, message.Context{})
			var no *keyring.NoKeyError
			require.ErrorAs(t, err, &no)
			require.Len(t, no.Needed, 2)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// Another SDK could write other lengths of tag and IV; none does.
func TestFieldsOfAESKeys(t *testing.T) {
	k := rawAES(t, "aes", 32, 1)
	e, err := k.Wrap(t.Context(), message.GenerateDataKey(message.Committed), message.Context{})
	require.NoError(t, err)
	for _, i := range []int{3, 7} { // the last bytes of u32 tag bits and u32 IV bytes
		info := []byte(e.Info)
		info[len("aes")+i]--
		bad := message.EDK{Provider: e.Provider, Info: string(info), Ciphertext: e.Ciphertext}
		require.True(t, k.Matches(bad))
		_, err := k.Unwrap(t.Context(), message.Committed, message.Context{}, bad)
		require.ErrorContains(t, err, "lengths of tag and IV")
	}
}

// An AES key binds the context to the data key, an RSA key does not: then it
// is the header's tag that finds a changed one.
func TestContextAndDataKey(t *testing.T) {
	c := contextOf(t, map[string]string{"k": "v"})
	for _, k := range []keyring.Key{rawAES(t, "aes", 32, 1), rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey())} {
		r := ringOf(t, keyring.Member{Key: k})
		e, err := r.Wrap(t.Context(), c)
		require.NoError(t, err)
		_, _, err = r.Unwrap(t.Context(), message.Committed, contextOf(t, map[string]string{"k": "w"}), e.EDKs)
		if k.Authenticates() {
			require.Error(t, err)
		} else {
			require.NoError(t, err)
		}
	}
}

// Old messages are read under paddings that new ones are not written with.
// A PKCS #1 v1.5 padding that is wrong is not told apart from a wrong key.
func TestPaddingsToReadOnly(t *testing.T) {
	key := message.GenerateDataKey(message.Committed)
	sha1 := rawRSA(t, "rsa", keyring.OAEPSHA1, nil, rsaKey())
	pkcs1 := rawRSA(t, "rsa", keyring.PKCS1, nil, rsaKey())
	for _, k := range []keyring.Key{sha1, pkcs1} {
		_, err := keyring.New(keyring.Member{Key: k})
		require.ErrorIs(t, err, keyring.ErrInvalid)
		require.ErrorContains(t, err, "for decryption only")
		_, err = k.Wrap(t.Context(), key, message.Context{})
		require.ErrorIs(t, err, keyring.ErrInvalid)
		_, err = ringOf(t, keyring.Member{Key: k, DecryptOnly: true}).Wrap(t.Context(), message.Context{})
		require.ErrorContains(t, err, "every key of the keyring is for decryption only")
	}
	//lint:ignore SA1019 old messages are made like that
	ciphertext, err := rsa.EncryptPKCS1v15(rand.Reader, &rsaKey().PublicKey, key.Bytes())
	require.NoError(t, err)
	edk := message.EDK{Provider: "tests", Info: "rsa", Ciphertext: ciphertext}
	got, err := pkcs1.Unwrap(t.Context(), message.Committed, message.Context{}, edk)
	require.NoError(t, err)
	require.Equal(t, key.Bytes(), got.Bytes())
	edk.Ciphertext[5] ^= 1
	got, err = pkcs1.Unwrap(t.Context(), message.Committed, message.Context{}, edk)
	require.NoError(t, err)
	require.NotEqual(t, key.Bytes(), got.Bytes())
	_, err = sha1.Unwrap(t.Context(), message.Committed, message.Context{}, edk)
	require.Error(t, err)
}

// counted is a key that says of everything that it is its own, and opens
// nothing.
type counted struct {
	keyring.Key
	bytes int
	tries *int
}

func (c counted) Matches(message.EDK) bool { return true }
func (c counted) EDKBytes() int            { return c.bytes }
func (c counted) Unwrap(context.Context, message.Suite, message.Context, message.EDK) (message.DataKey, error) {
	*c.tries++
	return message.NewDataKey(make([]byte, 5)), nil
}

// Whoever writes an object does not make its readers work for long.
func TestAttemptsAreBounded(t *testing.T) {
	tries := 0
	r := ringOf(t, keyring.Member{Key: counted{rawAES(t, "aes", 32, 1), 0, &tries}})
	_, _, err := r.Unwrap(t.Context(), message.Committed, message.Context{}, make([]message.EDK, 200))
	var no *keyring.NoKeyError
	require.ErrorAs(t, err, &no)
	require.Equal(t, 16, tries)
	require.ErrorContains(t, err, "a data key of 5 bytes, suite 0x0478 takes 32")
	require.ErrorContains(t, err, "and 196 more")
	require.Less(t, len(err.Error()), 3000)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = r.Unwrap(ctx, message.Committed, message.Context{}, make([]message.EDK, 3))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 17, tries)
}

// Where a length is known only after wrapping, another data key is the pad.
func TestPaddingByADataKey(t *testing.T) {
	aes := rawAES(t, "aes", 32, 1)
	r := ringOf(t, keyring.Member{Key: counted{aes, 0, new(int)}})
	c := contextOf(t, map[string]string{"k": "v"})
	e, err := r.Wrap(t.Context(), c)
	require.NoError(t, err)
	require.Equal(t, c, e.Context)
	require.Len(t, e.EDKs, 2)
	s, err := message.NewSealer(e.Key, e.Context, e.EDKs, 64)
	require.NoError(t, err)
	require.Len(t, s.Header(), 1024)
	msg, err := s.SealFinal(s.Header(), []byte("secret"))
	require.NoError(t, err)
	_, _, err = decrypt(ringOf(t, keyring.Member{Key: aes}), msg, message.Context{})
	require.NoError(t, err)
}

func TestKeysThatAreRefused(t *testing.T) {
	small, err := keyring.ParsePrivateKey([]byte(smallKey), nil)
	require.NoError(t, err)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	aes := func(namespace, name string, n int) error {
		_, err := keyring.NewRawAES(namespace, name, make([]byte, n))
		return err
	}
	pair := func(p keyring.Padding, public *rsa.PublicKey, private *rsa.PrivateKey) error {
		_, err := keyring.NewRawRSA("n", "k", p, public, private)
		return err
	}
	_, none := keyring.New()
	for text, err := range map[string]error{
		"0 bytes are no AES key":            aes("n", "k", 0),
		"33 bytes are no AES key":           aes("n", "k", 33),
		"needs a namespace and a name":      aes("", "k", 32),
		"a raw key needs a namespace":       aes("n", "", 32),
		"belongs to AWS KMS":                aes("aws-kms", "k", 32),
		"longer than 1024 bytes":            aes("n", strings.Repeat("k", 1025), 32),
		`padding "" is not known`:           pair("", nil, rsaKey()),
		`padding "oaep-md5" is not known`:   pair("oaep-md5", nil, rsaKey()),
		"neither a public nor a private":    pair(keyring.OAEPSHA256, nil, nil),
		"not that of the private key":       pair(keyring.OAEPSHA256, &other.PublicKey, rsaKey()),
		"RSA key of 1024 bits, 2048 are":    pair(keyring.OAEPSHA256, nil, small),
		"invalid key: a keyring needs a ke": none,
	} {
		require.ErrorIs(t, err, keyring.ErrInvalid, text)
		require.ErrorContains(t, err, text)
	}
}

// Nothing secret of a key is printed, whatever it is printed with.
func TestKeysAreNotPrinted(t *testing.T) {
	var out strings.Builder
	aes := rawAES(t, "aes", 32, 0xa0)
	pair := rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey())
	ring := ringOf(t, keyring.Member{Key: aes}, keyring.Member{Key: pair})
	for _, v := range []any{aes, pair, ring, struct{ k keyring.Key }{aes}, struct{ k keyring.Key }{pair}, struct{ r *keyring.Ring }{ring}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, secret := range []string{"GCM", "Precomputed", rsaKey().D.String(), rsaKey().Primes[0].String(),
		fmt.Sprintf("%x", rsaKey().D), fmt.Sprintf("%x", rsaKey().Primes[0]), "160 161 162", "a0a1a2"} {
		require.False(t, strings.Contains(out.String(), secret), "%.20s is printed", secret)
	}
	require.Contains(t, out.String(), "raw-aes tests/aes")
}

func TestPEM(t *testing.T) {
	read := func(name string) []byte {
		p, err := os.ReadFile(filepath.Join("testdata", name+".pem"))
		require.NoError(t, err)
		return p
	}
	phrase := func(s string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(s), nil } }
	key, err := keyring.ParsePrivateKey(read("private"), nil)
	require.NoError(t, err)
	for name, passphrase := range map[string]string{
		"private-pkcs1": "", "private-aes256": "secret", "private-aes128-sha1": "secret",
		"private-aes192-sha512": "secret", "private-aes256-empty": "",
	} {
		got, err := keyring.ParsePrivateKey(read(name), phrase(passphrase))
		require.NoError(t, err, name)
		require.True(t, key.Equal(got), name)
		if !strings.Contains(name, "aes") {
			continue
		}
		for i := range 300 { // a wrong key passes the padding once in 256 times
			_, err = keyring.ParsePrivateKey(read(name), phrase(fmt.Sprint("wrong", i)))
			require.ErrorIs(t, err, keyring.ErrPassphrase, name)
			if name != "private-aes128-sha1" {
				break
			}
		}
		_, err = keyring.ParsePrivateKey(read(name), nil)
		require.ErrorContains(t, err, "needs a passphrase")
		_, err = keyring.ParsePrivateKey(read(name), func() ([]byte, error) { return nil, os.ErrDeadlineExceeded })
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	}
	for _, name := range []string{"public", "public-pkcs1"} {
		got, err := keyring.ParsePublicKey(read(name))
		require.NoError(t, err, name)
		require.True(t, key.PublicKey.Equal(got), name)
	}

	private := func(p []byte) error { _, err := keyring.ParsePrivateKey(p, phrase("secret")); return err }
	public := func(p []byte) error { _, err := keyring.ParsePublicKey(p); return err }
	damage := func(p []byte) []byte { return []byte(strings.Replace(string(p), "\nMII", "\nMIJ", 1)) }
	twice := append(read("public"), read("public")...)
	for _, tt := range []struct {
		name string
		err  error
		text string
	}{
		{"no PEM", private([]byte("text")), "not PEM"},
		{"nothing", public(nil), "not PEM"},
		{"two keys", public(twice), "more than one PEM block"},
		{"public for private", private(read("public")), "holds a public key"},
		{"private for public", public(read("private")), "holds a private key"},
		{"another block", private([]byte("-----BEGIN X-----\n-----END X-----\n")), `"X", not PRIVATE KEY`},
		{"another public block", public([]byte("-----BEGIN X-----\n-----END X-----\n")), `"X", not PUBLIC KEY`},
		{"scrypt", private(read("refused-scrypt")), "something else than PBES2 with PBKDF2"},
		{"triple DES", private(read("refused-des3")), "something else than PBES2"},
		{"PBES1", private(read("refused-v1")), "something else than PBES2"},
		{"traditional", private(read("refused-traditional")), "openssl pkcs8 -topk8"},
		{"EC", private(read("refused-ec")), "the private key is not RSA"},
		{"encrypted EC", private(read("refused-ec-aes256")), "the private key is not RSA"},
		{"public EC", public(read("refused-ec-public")), "the public key is not RSA"},
		{"damaged", private(damage(read("private"))), "damaged"},
		{"damaged PKCS #1", private(damage(read("private-pkcs1"))), "damaged"},
		{"damaged public key", public(damage(read("public"))), "damaged"},
		{"damaged public PKCS #1", public(damage(read("public-pkcs1"))), "damaged"},
		{"damaged and encrypted", private(damage(read("private-aes256"))), "something else"},
	} {
		require.ErrorIs(t, tt.err, keyring.ErrInvalid, tt.name)
		require.ErrorContains(t, tt.err, tt.text, tt.name)
	}
}

// A key file is its user's own, and can be damaged all the same.
func FuzzPEM(f *testing.F) {
	names, err := filepath.Glob(filepath.Join("testdata", "*.pem"))
	require.NoError(f, err)
	for _, name := range names {
		p, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		_, err := keyring.ParsePrivateKey(p, nil)
		if err != nil {
			require.ErrorIs(t, err, keyring.ErrInvalid)
		}
		if _, err := keyring.ParsePublicKey(p); err != nil {
			require.ErrorIs(t, err, keyring.ErrInvalid)
		}
	})
}

// smallKey has 1024 bits.
const smallKey = `-----BEGIN PRIVATE KEY-----
MIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBAK6KYyII5lEdo1wc
634+2qOyK3ho5HXJl+oNIsNn9JmJpfT0I4pJsYyIgtQi2cMl4Fdp/0/KVNfeQ+LX
1YQeY+cTpdsKWu8ru2RFWwjeLq7FpLjWdtsMJnNwilZ6oA5B7Riu9pdn599ngmGh
xu+opYE1khOxKamSscJpBS4lue5/AgMBAAECgYEAmTf8nDUJ0i1daZAtnk6Y6liO
1o3l+Ax3IkxTtwv76giuueDTjiLxDLgNeSH63dfTH4l6SdYJMtL37xufYPK4qP4Z
NzqaFeuHV07HYwdLYc+LTResgpADR1LVSOhZx9b+nXuUzdw923gbHu45OUoBV4AP
KZ17WKHC/lvqY/Y18CkCQQDkURIXX95oWzYAvT2Sr+H7YmWZngLP2AHdnSpT9XtL
vTQjtxc59tDSjSyztnI3Y2nYlu/ywEAsXXatz7X3VVObAkEAw7QcbFw7nuUxssIx
svEdPOXsOJcjY9NZGGB/mWsh/eWCGKNsQfL2dtkY7QyW+EHQKRtm5Z1MzzdyiKJD
Nn8Y7QJBAL149e2F9rldsFQut9Fqurv2rWAtfCHmHa4/BmiEmNyC2KknAVRuGmAR
Hl7JcsG6c5V1tQ0cNGVc7udRL65hFi8CQQCqCmGz6UPIYN4YstCZ6RP9aM0hsniG
cQl1u8rCk6paP8MVA1G5z5BEXYdh2FGIbS6fuPZjxZQKa+PxQgNiY3ZVAkAi7vE2
w5vpI/ytosuldbTD/M/23TlEzmcj70ofAOFIeeEG2PlxMy3XKgXAo8jOkJ8Xi1OW
fQ9U/22Ji1oo7Tlb
-----END PRIVATE KEY-----
`
