package interop

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// The dimensions of the matrix. All are stepped through at once, each from its
// begin again after its end. No two of the numbers of values have a common
// divisor, so that n*m steps meet every pair of the values of two dimensions.
var (
	suites = []message.Suite{0x0014, 0x0046, 0x0078, 0x0114, 0x0146, 0x0178, 0x0214, 0x0346, 0x0378, message.Committed, message.CommittedSigned}

	contexts = []map[string]string{
		nil,
		{"purpose": "interop", "a": "", "Z": "z"},
		// Sorted by their bytes in UTF-8: not in the order of UTF-16.
		{"\U0001f600": "beyond 16 bits", "\uff5e": "within", "é": "ü"},
	}

	// Python writes no frames but multiples of 128 bytes; it reads all.
	theirShapes = shapes(512, 4096, 4224, 64<<10, 1<<20)
	ourShapes   = shapes(512, 1000, 4096, 64<<10, 1<<20)
)

type shape struct{ frame, size int64 }

func shapes(frames ...int64) (all []shape) {
	for _, frame := range frames {
		many := 50*frame + 7
		if frame >= 64<<10 {
			many = 4*frame + frame/2
		}
		for _, size := range []int64{0, 1, frame - 1, frame, frame + 1, 2 * frame, 3 * frame, many} {
			all = append(all, shape{frame, size})
		}
	}
	return all
}

// matrix calls try with steps through dimensions of so many values: enough to
// meet every value, or with COFFER_INTEROP=full every pair of values.
func matrix(t *testing.T, dimensions []int, try func(i int)) {
	t.Helper()
	for a, n := range dimensions {
		for _, m := range dimensions[:a] {
			require.Equal(t, 1, gcd(n, m), "%d and %d values: some pairs would not be met", n, m)
		}
	}
	longest := slices.Sorted(slices.Values(dimensions))
	slices.Reverse(longest)
	steps := longest[0]
	if os.Getenv("COFFER_INTEROP") == "full" {
		steps = longest[0] * longest[1]
	}
	for i := range steps {
		try(i)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d messages", steps)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// pattern is a plaintext of n bytes that repeats itself in no frame.
func pattern(n int64) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + i>>16)
	}
	return p
}

// seal writes a message as Coffer does.
func seal(t *testing.T, s *message.Sealer, plain []byte) []byte {
	t.Helper()
	msg, frame := s.Header(), s.Profile().Frame
	var err error
	for i := int64(0); int64(len(plain)) >= frame; i++ {
		msg, err = s.Seal(msg, i, plain[:frame])
		require.NoError(t, err)
		plain = plain[frame:]
	}
	msg, err = s.SealFinal(msg, plain)
	require.NoError(t, err)
	return msg
}

func newContext(t *testing.T, m map[string]string) message.Context {
	t.Helper()
	c, err := message.NewContext(m)
	require.NoError(t, err)
	return c
}

// open reads a whole message by Coffer's code, the signature too.
func open(msg []byte, with keyring.Key) ([]byte, message.Layout, error) {
	fail := func(err error) ([]byte, message.Layout, error) { return nil, message.Layout{}, err }
	h, err := message.ParseHeader(msg)
	if err != nil {
		return fail(err)
	}
	key, err := unwrap(h, with)
	if err != nil {
		return fail(err)
	}
	o, err := message.NewOpener(h, key, message.Context{})
	if err != nil {
		return fail(err)
	}
	l, last, err := o.Locate(nil, int64(len(msg)), msg[h.Bytes():])
	if err != nil {
		return fail(err)
	}
	plain := make([]byte, 0, l.Size())
	for i := range l.Full {
		if plain, err = o.Open(plain, i, msg[l.Offset(i):][:l.Bytes(i)]); err != nil {
			return fail(err)
		}
	}
	if h.Suite.Signed() {
		v, err := o.Verifier()
		if err != nil {
			return fail(err)
		}
		footer := l.Stored() - l.Footer
		_, _ = v.Write(msg[h.Bytes():footer])
		if err := v.Verify(msg[footer:]); err != nil {
			return fail(err)
		}
	}
	return append(plain, last...), l, nil
}

// policy is the commitment policy under which a library writes the suite.
func policy(s message.Suite) string {
	if s.Committing() {
		return "" // the default
	}
	return "FORBID_ENCRYPT_ALLOW_DECRYPT"
}

// What the libraries write, Coffer reads: every suite, every raw keyring, any
// of several keys, and both ends that a message can have.
func TestLibrariesWriteAndCofferReads(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		keys := keysTogether()
		footers := map[int64]int{}
		matrix(t, []int{len(suites), len(keys), len(contexts), len(theirShapes)}, func(i int) {
			suite, under := suites[i%len(suites)], keys[i%len(keys)]
			context, s := contexts[i%len(contexts)], theirShapes[i%len(theirShapes)]
			name := fmt.Sprintf("suite %s, %d bytes in frames of %d, keys %s, %d entries of context", suite, s.size, s.frame, names(under), len(context))

			plain := pattern(s.size)
			msg := o.encrypt(t, request{Suite: suite.String(), Policy: policy(suite), Frame: s.frame, Context: context, Keyrings: under}, plain)
			for _, k := range under {
				got, l, err := open(msg, k.key(t))
				require.NoError(t, err, "%s: by %q", name, k.Name)
				require.True(t, bytes.Equal(plain, got), name)
				if s.size%s.frame == 0 && s.size > 0 {
					require.Equal(t, o.fullFinal, l.Last == s.frame, "%s: final frame of %d bytes", name, l.Last)
				}
				if suite.Signed() {
					footers[l.Footer]++
				}
			}
			h, err := message.ParseHeader(msg)
			require.NoError(t, err)
			require.Equal(t, suite, h.Suite)
			require.Len(t, h.EDKs, len(under))
			for k, v := range context {
				stored, _ := h.Context.Get(k)
				require.Equal(t, v, stored, name)
			}
		})
		if o.pinned {
			for n := range footers {
				require.Contains(t, []int64{73, 105}, n, "footer")
			}
		}
		t.Logf("%s: lengths of footers: %v", o.library, footers)
	})
}

// What Coffer writes, the libraries read, with any of its keys.
func TestCofferWritesAndLibrariesRead(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		keys := thatWrap(t, keysTogether())
		matrix(t, []int{len(keys), len(contexts), len(ourShapes)}, func(i int) {
			under, context, s := keys[i%len(keys)], contexts[i%len(contexts)], ourShapes[i%len(ourShapes)]
			name := fmt.Sprintf("%d bytes in frames of %d, keys %s, %d entries of context", s.size, s.frame, names(under), len(context))

			e := wrap(t, newContext(t, context), under)
			sealer, err := message.NewSealer(e.Key, e.Context, e.EDKs, s.frame)
			require.NoError(t, err)
			plain := pattern(s.size)
			msg := seal(t, sealer, plain)
			for _, with := range append([][]rawKey{under}, each(under)...) {
				got, err := o.decrypt(t, msg, with...)
				require.NoError(t, err, "%s: by %s", name, names(with))
				require.True(t, bytes.Equal(plain, got), name)
			}
		})
	})
}

// The profile that Coffer writes is read by the libraries: header padded to
// its constant length, by an entry of the context or by a data key that nobody
// can unwrap, and one data key for several messages.
func TestLibrariesReadPaddedHeaders(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		under := []rawKey{rawAES(256), rawRSA(2048, keyring.OAEPSHA256)}
		volume := newContext(t, map[string]string{"coffer-vol": "f3b1a1f0-volume"})
		byContext := wrap(t, volume, under)
		byDataKey := keyring.Envelope{Key: message.GenerateDataKey(message.Committed), Context: volume}
		for _, k := range under {
			edk, err := k.key(t).Wrap(t.Context(), byDataKey.Key, volume)
			require.NoError(t, err)
			byDataKey.EDKs = append(byDataKey.EDKs, edk)
		}
		byDataKey.EDKs = message.PadEDKs(volume, byDataKey.EDKs)

		for name, e := range map[string]keyring.Envelope{"the context": byContext, "a data key": byDataKey} {
			for n := range int64(3) {
				s, err := message.NewSealer(e.Key, e.Context, e.EDKs, message.Own.Frame)
				require.NoError(t, err)
				require.Equal(t, message.Own, s.Profile(), "padded by %s", name)
				plain := pattern(n * message.Own.Frame)
				msg := seal(t, s, plain)
				for _, k := range under {
					k.ItsOrder = true // the names in Coffer's context are in every order the same
					got, err := o.decrypt(t, msg, k)
					require.NoError(t, err, "padded by %s, read by %q", name, k.Name)
					require.True(t, bytes.Equal(plain, got), "padded by %s, read by %q", name, k.Name)
				}
			}
		}
	})
}

// Data keys with the padding of PKCS #1 v1.5 are read, in all suites, and not
// written: Node.js refuses to read them.
func TestCofferReadsPKCS1(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		k, plain := rawRSA(2048, keyring.PKCS1), pattern(1000)
		for _, suite := range suites {
			msg := o.encrypt(t, request{Suite: suite.String(), Policy: policy(suite), Frame: 512, Keyrings: []rawKey{k}}, plain)
			got, _, err := open(msg, k.key(t))
			require.NoError(t, err, suite)
			require.True(t, bytes.Equal(plain, got), suite)
		}
	})
}

// A message of a single block is read by Coffer, in all suites.
func TestCofferReadsBlocks(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		if !o.blocks {
			t.Skip("this library writes none")
		}
		k := rawAES(192)
		for _, suite := range suites {
			for _, size := range []int64{0, 1, 70_000} {
				plain := pattern(size)
				msg := o.encrypt(t, request{Suite: suite.String(), Policy: policy(suite), Block: true, Keyrings: []rawKey{k}}, plain)
				h, err := message.ParseHeader(msg)
				require.NoError(t, err)
				require.Zero(t, h.Frame)
				key, err := unwrap(h, k.key(t))
				require.NoError(t, err)
				opener, err := message.NewOpener(h, key, message.Context{})
				require.NoError(t, err)
				got, err := opener.OpenBlock(nil, msg[h.Bytes():], size)
				require.NoError(t, err, suite)
				require.True(t, bytes.Equal(plain, got), suite)
				if suite.Signed() {
					end := h.Bytes() + message.BlockOverhead + size
					v, err := opener.Verifier()
					require.NoError(t, err)
					_, _ = v.Write(msg[h.Bytes():end])
					require.NoError(t, v.Verify(msg[end:]), suite)
				}
			}
		}
	})
}

// JavaScript's raw AES keyring does not follow the specification by default;
// Coffer's context suits it (TestLibrariesReadPaddedHeaders), others do not.
func TestOrderOfContext(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		for names, differs := range map[[2]string]bool{{"a", "b"}: false, {"coffer-vol", "coffer-pad"}: false, {"a", "B"}: true} {
			k := rawAES(256)
			k.ItsOrder = true
			msg := o.encrypt(t, request{Context: map[string]string{names[0]: "1", names[1]: "2"}, Keyrings: []rawKey{k}}, pattern(10))
			_, _, err := open(msg, k.key(t))
			if differs && o.name == "js" {
				var none *keyring.NoKeyError
				require.ErrorAs(t, err, &none, names)
			} else {
				require.NoError(t, err, names)
			}
		}
	})
}

// The recipe of the ABCI 3.0 guide: Python's library with all its defaults,
// one raw RSA key of 4096 bits. The lengths are those that sizes of such
// objects are computed with.
func TestRecipeOfABCI(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		k := rawRSA(4096, keyring.OAEPSHA256)
		k.Namespace, k.Name = "MyAppKeys", "S3RSAKey"
		profile := message.Profile{Header: 722, Frame: 4096, Footer: 105}
		for size, stored := range map[int64]int{0: 867, 100000: 101635} {
			plain := pattern(size)
			// The two sides of the recipe have one key of the pair each.
			public, private := k, k
			public.Private, private.Public = "", ""
			msg := o.encrypt(t, request{Keyrings: []rawKey{public}}, plain)
			h, err := message.ParseHeader(msg)
			require.NoError(t, err)
			require.Equal(t, message.CommittedSigned, h.Suite)
			require.Equal(t, 1, h.Context.Len(), "only the key of the signature")
			got, l, err := open(msg, private.key(t))
			require.NoError(t, err)
			require.True(t, bytes.Equal(plain, got))
			if o.pinned {
				require.Equal(t, profile, l.Profile)
				require.Len(t, msg, stored)
			}
			back, err := o.decrypt(t, msg, private)
			require.NoError(t, err)
			require.True(t, bytes.Equal(plain, back))
		}
	})
}

// A suite that does not commit to its key is refused by the libraries unless
// they are told otherwise, as it is by Coffer's callers.
func TestLibrariesRefuseSuitesWithoutCommitment(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		under := []rawKey{rawAES(256)}
		const suite = message.Suite(0x0178)
		msg := o.encrypt(t, request{Suite: suite.String(), Policy: policy(suite), Keyrings: under}, pattern(100))
		_, err := o.decrypt(t, msg, under...)
		require.Error(t, err)
		got, _, err := o.do(t, request{Op: "decrypt", Keyrings: under, Policy: policy(suite)}, msg)
		require.NoError(t, err)
		require.Equal(t, pattern(100), got)
	})
}

// What is not as it was written is refused by both: any flipped bit, an end
// cut off, frames in another order. Bytes after the end are refused by Coffer,
// and by some of the libraries: see takesMore.
func TestBothRefuseWhatWasChanged(t *testing.T) {
	withOracles(t, func(t *testing.T, o *oracle) {
		k := rawAES(256)
		key := k.key(t)
		const frame = 128
		plain := pattern(2*frame + 10)
		// Not as wrap does it: a padded header would be most of the message.
		c := newContext(t, map[string]string{"a": "b"})
		dataKey := message.GenerateDataKey(message.Committed)
		edk, err := key.Wrap(t.Context(), dataKey, c)
		require.NoError(t, err)
		s, err := message.NewSealer(dataKey, c, []message.EDK{edk}, frame)
		require.NoError(t, err)
		step := 11
		if os.Getenv("COFFER_INTEROP") == "full" {
			step = 1
		}
		for writer, msg := range map[string][]byte{
			"Coffer":  seal(t, s, plain),
			"library": o.encrypt(t, request{Frame: frame, Context: map[string]string{"a": "b"}, Keyrings: []rawKey{k}}, plain),
		} {
			got, l, err := open(msg, k.key(t))
			require.NoError(t, err)
			require.Equal(t, plain, got)
			got, err = o.decrypt(t, msg, k)
			require.NoError(t, err)
			require.Equal(t, plain, got)

			changed := map[string][]byte{}
			for i := 0; i < len(msg); i += step {
				p := bytes.Clone(msg)
				p[i] ^= 1 << (i % 8)
				changed[fmt.Sprintf("bit %d of byte %d flipped", i%8, i)] = p
			}
			for i := range l.Full + 1 {
				changed[fmt.Sprintf("cut off before frame %d", i)] = msg[:l.Offset(i)]
			}
			changed["cut off within the last frame"] = msg[:l.Stored()-l.Footer-1]
			changed["the last byte cut off"] = msg[:len(msg)-1]
			swapped := bytes.Clone(msg)
			copy(swapped[l.Offset(0):], msg[l.Offset(1):l.Offset(2)])
			copy(swapped[l.Offset(1):], msg[l.Offset(0):l.Offset(1)])
			changed["two frames swapped"] = swapped
			for what, p := range changed {
				_, _, err := open(p, key)
				assert.Error(t, err, "%s, written by %s: Coffer", what, writer)
				_, err = o.decrypt(t, p, k)
				assert.Error(t, err, "%s, written by %s: %s", what, writer, o.name)
			}

			more := append(bytes.Clone(msg), 0)
			_, _, err = open(more, key)
			assert.Error(t, err, "a byte after the end, written by %s: Coffer", writer)
			h, err := message.ParseHeader(msg)
			require.NoError(t, err)
			got, err = o.decrypt(t, more, k)
			if !o.takesMore(h.Suite) {
				assert.Error(t, err, "a byte after the end, written by %s: %s", writer, o.name)
			} else if assert.NoError(t, err, "a byte after the end, written by %s: %s", writer, o.name) {
				require.Equal(t, plain, got)
			}
		}
	})
}
