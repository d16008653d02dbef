package s3ec

import (
	"bytes"
	"crypto/aes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
)

// Objects that the official clients have written are read, for ever.
func TestObjectsOfTheOfficialClients(t *testing.T) {
	text, err := os.ReadFile("testdata/golden.json")
	require.NoError(t, err)
	var golden struct {
		Plaintext string
		Objects   []struct {
			Name, Object string
			Meta         map[string]string
		}
	}
	require.NoError(t, json.Unmarshal(text, &golden))
	require.Len(t, golden.Objects, 6)
	text, err = os.ReadFile("testdata/golden.pem")
	require.NoError(t, err)
	der, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(der.Bytes)
	require.NoError(t, err)
	sequence := func(from byte) []byte {
		b := make([]byte, 32)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	for _, g := range golden.Objects {
		t.Run(g.Name, func(t *testing.T) {
			object, err := base64.StdEncoding.DecodeString(g.Object)
			require.NoError(t, err)
			e, err := Parse(g.Meta)
			require.NoError(t, err)
			require.Equal(t, g.Name[:2], e.Version().String())
			var key message.DataKey
			switch e.Wrap() {
			case WrapAES:
				key, err = e.UnwrapAES(newGCM(t, sequence(0x40)))
			case WrapRSA:
				key, err = e.UnwrapRSA(private.(*rsa.PrivateKey))
			case WrapKMS:
				key, err = e.UnwrapKMS(map[string]string{"project": "coffer"}, func(ciphertext []byte, context map[string]string) ([]byte, error) {
					require.Equal(t, "ciphertext of a KMS", string(ciphertext))
					require.Equal(t, map[string]string{"project": "coffer", "aws:x-amz-cek-alg": e.cipher()}, context)
					return sequence(0), nil
				})
			}
			require.NoError(t, err)
			v, err := NewVerifier(e, key, int64(len(object)))
			require.NoError(t, err)
			plain, err := finish(v, object)
			require.NoError(t, err)
			require.Equal(t, golden.Plaintext, string(plain))
		})
	}
}

// sizes are around the bounds of AES blocks, of strides and of blocks.
var sizes = []int{0, 1, 15, 16, 17, 31, 32, 33, stride - 1, stride, stride + 1, BlockBytes - 1, BlockBytes, BlockBytes + 1, 3*BlockBytes + 5}

func TestEveryVersionAndWrapIsReadBack(t *testing.T) {
	for _, w := range others {
		t.Run(w.String(), func(t *testing.T) {
			for _, n := range sizes {
				plain := pattern(n)
				meta, object := w.write(t, plain)
				e, err := Parse(meta)
				require.NoError(t, err)
				require.Equal(t, w.version, e.Version())
				require.Equal(t, w.wrap, e.Wrap())
				require.Equal(t, "me", e.Description()["who"])
				size, err := e.Size(int64(len(object)))
				require.NoError(t, err)
				require.Equal(t, int64(n), size)
				got, err := read(meta, object)
				require.NoError(t, err, "%d bytes", n)
				require.True(t, bytes.Equal(plain, got), "%d bytes come back as others", n)
			}
		})
	}
}

// compare seals by crypto/cipher, and verifies and opens what comes of it in
// random pieces; then it does so with a byte flipped, which must fail.
func compare(t *testing.T, seed uint64, size, aadSize, pieces int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	bytesOf := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	key, iv, aad, plain := bytesOf(keyBytes), bytesOf(ivBytes), bytesOf(aadSize), bytesOf(size)
	object := newGCM(t, key).Seal(nil, iv, plain, aad)
	var cuts []int
	for range pieces {
		cuts = append(cuts, r.IntN(len(object)+1))
	}
	slices.Sort(cuts)
	got, err := readRaw(key, iv, aad, object, cuts...)
	require.NoError(t, err)
	require.True(t, bytes.Equal(plain, got), "other bytes than crypto/cipher's")
	object[r.IntN(len(object))] ^= byte(1 + r.IntN(255))
	got, err = readRaw(key, iv, aad, object, cuts...)
	require.ErrorIs(t, err, message.Unauthentic)
	require.Nil(t, got)
}

func TestAgainstCryptoCipher(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		compare(t, r.Uint64(), r.IntN(1<<r.IntN(18)), r.IntN(40), r.IntN(20))
	}
	for _, n := range sizes {
		compare(t, r.Uint64(), n, 2, 40)
	}
}

func FuzzAgainstCryptoCipher(f *testing.F) {
	f.Add(uint64(1), uint32(0), uint16(0), uint8(0))
	f.Add(uint64(2), uint32(17), uint16(2), uint8(3))
	f.Add(uint64(3), uint32(stride+1), uint16(20), uint8(9))
	f.Add(uint64(4), uint32(BlockBytes+33), uint16(2), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, size uint32, aad uint16, pieces uint8) {
		compare(t, seed, int(size%(BlockBytes+stride)), int(aad%1000), int(pieces))
	})
}

// No byte of an object can be changed, and none of its metadata so that other
// bytes come of it.
func TestEveryByteFlipped(t *testing.T) {
	plain := pattern(40)
	for _, w := range others {
		t.Run(w.String(), func(t *testing.T) {
			meta, object := w.write(t, plain)
			e, err := Parse(meta)
			require.NoError(t, err)
			key, err := unwrap(e)
			require.NoError(t, err)
			for i := range object {
				for _, flip := range []byte{1, 0x80, 0xff} {
					forged := bytes.Clone(object)
					forged[i] ^= flip
					v, err := NewVerifier(e, key, int64(len(forged)))
					require.NoError(t, err)
					got, err := finish(v, forged)
					require.ErrorIs(t, err, message.Unauthentic, "byte %d", i)
					require.Nil(t, got)
				}
			}
			refused := map[string]int{}
			for name, value := range meta {
				for i := range value {
					forged := maps.Clone(meta)
					b := []byte(value)
					b[i] ^= 1
					forged[name] = string(b)
					got, err := read(forged, object)
					if err == nil {
						require.Equal(t, plain, got, "%s, byte %d", name, i)
						continue
					}
					require.Nil(t, got)
					refused[name]++
				}
				if name != "mode" {
					forged := maps.Clone(meta)
					delete(forged, name)
					if got, err := read(forged, object); err == nil {
						require.Equal(t, plain, got, "without %s", name)
					}
				}
			}
			for _, name := range []string{"x-amz-key-v2", "x-amz-iv", "x-amz-wrap-alg", "x-amz-cek-alg", "x-amz-tag-len", "x-amz-unencrypted-content-length",
				"x-amz-c", "x-amz-3", "x-amz-w", "x-amz-d", "x-amz-i", "x-amz-t"} {
				if value, ok := meta[name]; ok {
					require.Equal(t, len(value), refused[name], "%s can be changed", name)
				}
			}
		})
	}
}

func TestEveryTruncation(t *testing.T) {
	for _, w := range []other{{V2, WrapAES}, {V3, WrapAES}} {
		meta, object := w.write(t, pattern(40))
		delete(meta, "x-amz-unencrypted-content-length") // else it tells at once
		e, err := Parse(meta)
		require.NoError(t, err)
		key, err := unwrap(e)
		require.NoError(t, err)
		for n := range object {
			// The store says that the object is shorter.
			got, err := read(meta, object[:n])
			require.Error(t, err)
			require.Nil(t, got)
			if n >= tagBytes {
				require.ErrorIs(t, err, message.Unauthentic, "%d bytes", n)
			} else {
				require.ErrorIs(t, err, message.Malformed, "%d bytes", n)
			}
			// The store sends less than it said.
			v, err := NewVerifier(e, key, int64(len(object)))
			require.NoError(t, err)
			_, err = v.Write(object[:n])
			require.NoError(t, err)
			verified, err := v.Finish()
			require.Nil(t, verified)
			var short *message.Error
			require.ErrorAs(t, err, &short)
			require.Equal(t, message.Short, short.Kind)
			require.Equal(t, int64(len(object)), short.Need)
			// The rest may still come.
			_, err = v.Write(object[n:])
			require.NoError(t, err)
			_, err = v.Finish()
			require.NoError(t, err)
			// And nothing more.
			_, err = v.Write([]byte{0})
			require.ErrorIs(t, err, message.Malformed)
		}
		_, err = read(meta, append(object, 0))
		require.ErrorIs(t, err, message.Unauthentic)
	}
}

// verify returns an object of three blocks and a bit, verified.
func verify(t testing.TB) (v *Verified, plain, object []byte) {
	t.Helper()
	plain = pattern(3*BlockBytes + 100)
	meta, object := other{V3, WrapAES}.write(t, plain)
	e, err := Parse(meta)
	require.NoError(t, err)
	key, err := unwrap(e)
	require.NoError(t, err)
	verifier, err := NewVerifier(e, key, int64(len(object)))
	require.NoError(t, err)
	_, err = verifier.Write(object)
	require.NoError(t, err)
	v, err = verifier.Finish()
	require.NoError(t, err)
	return v, plain, object
}

func TestSwappedBlocks(t *testing.T) {
	meta, object := other{V2, WrapAES}.write(t, pattern(3*BlockBytes))
	swapped := slices.Concat(object[:BlockBytes], object[2*BlockBytes:3*BlockBytes], object[BlockBytes:2*BlockBytes], object[3*BlockBytes:])
	got, err := read(meta, swapped)
	require.ErrorIs(t, err, message.Unauthentic)
	require.Nil(t, got)
}

// Once verified, an object is known by its blocks: none can be replaced.
func TestOpenRefusesOtherBlocks(t *testing.T) {
	v, plain, object := verify(t)
	require.Equal(t, int64(4), v.Blocks())
	require.Equal(t, int64(len(plain)), v.Size())
	block := func(i int64) []byte {
		off, n := v.Range(i)
		return object[off : off+n]
	}
	dst := bytes.Repeat([]byte{7}, BlockBytes)
	refused := func(kind message.Kind, i int64, b []byte) {
		t.Helper()
		got, err := v.Open(dst[:0], i, b)
		require.ErrorIs(t, err, kind)
		require.Nil(t, got)
		require.Equal(t, BlockBytes, bytes.Count(dst, []byte{7}), "dst was written")
	}
	for i := range v.Blocks() {
		for j := range v.Blocks() {
			if i != j && len(block(i)) == len(block(j)) {
				refused(message.Unauthentic, i, block(j))
			}
		}
		for _, at := range []int{0, 1, 17, len(block(i)) - 1} {
			forged := bytes.Clone(block(i))
			forged[at] ^= 1
			refused(message.Unauthentic, i, forged)
		}
		refused(message.Malformed, i, block(i)[1:])
		refused(message.Malformed, i, nil)
	}
	refused(message.Malformed, 3, object[3*BlockBytes:]) // with the tag
	refused(message.Malformed, 4, object[len(object)-tagBytes:])
	refused(message.Malformed, 4, nil)
	refused(message.Malformed, -1, block(0))
}

func TestOpenAppendsAndOpensInPlace(t *testing.T) {
	v, plain, object := verify(t)
	got, err := v.Open([]byte("before"), 3, object[3*BlockBytes:3*BlockBytes+100])
	require.NoError(t, err)
	require.Equal(t, "before"+string(plain[3*BlockBytes:]), string(got))
	block := bytes.Clone(object[BlockBytes : 2*BlockBytes])
	got, err = v.Open(block[:0], 1, block)
	require.NoError(t, err)
	require.True(t, bytes.Equal(plain[BlockBytes:2*BlockBytes], block), "not in place")
	require.Same(t, &block[0], &got[0])
}

func TestOpenIsSafeForConcurrentUse(t *testing.T) {
	v, plain, object := verify(t)
	var wg sync.WaitGroup
	for i := range 2 * v.Blocks() {
		wg.Go(func() {
			off, n := v.Range(i % v.Blocks())
			got, err := v.Open(nil, i%v.Blocks(), object[off:off+n])
			if err != nil || !bytes.Equal(plain[off:off+n], got) {
				t.Errorf("block %d: other bytes, or %v", i%v.Blocks(), err)
			}
		})
	}
	wg.Wait()
}

// The counter of the last block of AES in the largest object is the last one
// that there is.
func TestEndOfTheLargestObject(t *testing.T) {
	const last = maxSize / BlockBytes
	block, err := aes.NewCipher(testKey)
	require.NoError(t, err)
	zeros := make([]byte, maxSize-last*BlockBytes)
	v := &Verified{content{block: block, iv: make([]byte, ivBytes), size: maxSize, sums: make([][sha256.Size]byte, last+1)}}
	v.content.sums[last] = sha256.Sum256(zeros)
	off, n := v.Range(last)
	require.Equal(t, int64(maxSize), off+n)
	stream, err := v.Open(nil, last, zeros)
	require.NoError(t, err)
	for _, c := range []struct {
		at      int
		counter uint32
	}{{0, 2 + last*(BlockBytes/16)}, {len(stream) - 16, 1<<32 - 1}} {
		want := make([]byte, 16)
		binary.BigEndian.PutUint32(want[12:], c.counter)
		block.Encrypt(want, want)
		require.Equal(t, want, stream[c.at:c.at+16])
	}
}

// A verifier keeps 32 bytes for each block of 1 MiB, and no byte of it.
func TestVerifierKeepsNothing(t *testing.T) {
	v, err := newVerifier(testKey, make([]byte, ivBytes), nil, 1<<30)
	require.NoError(t, err)
	piece := make([]byte, BlockBytes)
	allocs := testing.AllocsPerRun(20, func() {
		if _, err := v.Write(piece); err != nil {
			t.Error(err)
		}
	})
	require.LessOrEqual(t, allocs, 2.0)
}
