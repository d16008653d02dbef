package message_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A reader made of ../FORMAT.md alone, with nothing of the package, reads what
// Coffer writes. It says by the way how little a reader needs.
func TestFormatIsEnoughForAReader(t *testing.T) {
	u16, u32 := binary.BigEndian.Uint16, binary.BigEndian.Uint32
	for name, size := range map[string]int{"own-empty": 0, "own-100": 100, "own-65537": 65537} {
		object, err := os.ReadFile(filepath.Join("testdata", "golden", name+".esdk"))
		require.NoError(t, err)
		const H, F = 1024, 65536 // of the metadata
		D := make([]byte, 32)    // what a keyring would have said
		for i := range D {
			D[i] = byte(0xa0 + i)
		}

		// Header
		require.Equal(t, "\x02\x04\x78", string(object[:3]))
		id := object[3:35]
		at := 37 + int(u16(object[35:]))
		context := object[37:at]
		require.True(t, bytes.HasPrefix(context, []byte("\x00\x02\x00\x0acoffer-pad")))
		require.Contains(t, string(context), "-\x00\x0acoffer-vol\x00\x100123456789abcdef")
		keys := int(u16(object[at:]))
		at += 2
		for range 3 * keys {
			at += 2 + int(u16(object[at:]))
		}
		require.Equal(t, H-53, at)
		require.Equal(t, byte(2), object[at])
		require.Equal(t, uint32(F), u32(object[H-52:]))
		prk, err := hkdf.Extract(sha512.New, D, id)
		require.NoError(t, err)
		expand := func(info string) []byte {
			p, err := hkdf.Expand(sha512.New, prk, info, 32)
			require.NoError(t, err)
			return p
		}
		require.Equal(t, expand("COMMITKEY"), object[H-48:H-16])
		block, err := aes.NewCipher(expand("\x04\x78DERIVEKEY"))
		require.NoError(t, err)
		gcm, err := cipher.NewGCM(block)
		require.NoError(t, err)
		_, err = gcm.Open(nil, make([]byte, 12), object[H-16:H], object[:H-16])
		require.NoError(t, err)

		// Body
		B := len(object) - H - 40
		k, n := B/(F+32), B%(F+32)
		require.LessOrEqual(t, n, F)
		require.Equal(t, size, k*F+n)
		open := func(sealed, iv []byte, kind string, seq uint32, n int) []byte {
			aad := append(bytes.Clone(id), kind...)
			aad = binary.BigEndian.AppendUint32(aad, seq)
			aad = binary.BigEndian.AppendUint64(aad, uint64(n))
			p, err := gcm.Open(nil, iv, sealed, aad)
			require.NoError(t, err)
			return p
		}
		var plain []byte
		for i := range k {
			frame := object[H+65568*i:][:65568]
			require.Equal(t, uint32(i+1), u32(frame))
			plain = append(plain, open(frame[16:], frame[4:16], "AWSKMSEncryptionClient Frame", uint32(i+1), F)...)
		}
		final := object[H+65568*k:]
		require.Equal(t, []uint32{0xffffffff, uint32(k + 1), uint32(n)}, []uint32{u32(final), u32(final[4:]), u32(final[20:])})
		require.Equal(t, append(make([]byte, 8), final[4:8]...), final[8:20])
		plain = append(plain, open(final[24:], final[8:20], "AWSKMSEncryptionClient Final Frame", uint32(k+1), n)...)
		require.Len(t, plain, size)
		for i, b := range plain {
			if b != byte(i*7+i>>8) {
				t.Fatalf("byte %d of %s is %d", i, name, b)
			}
		}

		// Path binding
		mac := hmac.New(sha256.New, expand("coffer path binding"))
		mac.Write([]byte("\x00\x06bucketdir/file"))
		mac.Write(id)
		require.Equal(t, map[string]string{
			"own-empty": "XSLpG1LdTW1BrI0EJx4OqAPo7IDliFSPq2tlca/e0To=",
			"own-100":   "rB7aL/Sgrw3t5wm4qlRxWpQ+JImWh37Nj2Tf6gWaz3A=",
			"own-65537": "BkSjjBI/dpl3UFg0pDMC03Jzb5jkWynw16vsWG4KxMo=",
		}[name], base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
}
