package s3ec

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/message"
)

// gcmVectors are of AES-256-GCM with an IV of 12 bytes and a tag of 16:
//
//   - "GCM spec": test cases 13 to 16 of McGrew and Viega, The Galois/Counter
//     Mode of Operation (GCM), which was submitted to NIST
//   - "NIST CAVP": gcmEncryptExtIV256.rsp
//   - "Wycheproof": testvectors/aes_gcm_test.json of C2SP/wycheproof, by tcId
var gcmVectors = []struct{ name, key, iv, aad, plain, cipher, tag string }{
	{"GCM spec 13", zeros32, zeros12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
	{"GCM spec 14", zeros32, zeros12, "", "00000000000000000000000000000000",
		"cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
	{"GCM spec 15", feffe9, "cafebabefacedbaddecaf888", "",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
		"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
		"b094dac5d93471bdec1a502270e3cc6c"},
	{"GCM spec 16", feffe9, "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
		"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
		"522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
		"76fc6ece0f4e1768cddf8853bb2d551b"},
	{"NIST CAVP, no plaintext", "5394e890d37ba55ec9d5f327f15680f6a63ef5279c79331643ad0af6d2623525", "3c819d9a9bed087615030b65", "", "",
		"", "d9b260d4bc4630733ffb642f5ce45726"},
	{"Wycheproof 75", "80ba3192c803ce965ea371d5ff073cf0f43b6a2ab576b208426e11409c09b9b0", "4da5bf8dfd5852c1ea12379d", "", "",
		"", "4771a7c404a472966cea8f73c8bfe17a"},
	{"Wycheproof 78", "67119627bd988eda906219e08c0d0d779a07d208ce8a4fe0709af755eeec6dcb", "68ab7fdbf61901dad461d23c", "", "51f8c1f731ea14acdb210a6d973e07",
		"43fc101bff4b32bfadd3daf57a590e", "ec04aacb7148a8b8be44cb7eaf4efa69"},
	{"Wycheproof 80", "3b2458d8176e1621c0cc24c0c0e24c1e80d72f7ee9149a4b166176629616d011", "45aaa3e5d16d2d42dc03445d", "", "3ff1514b1c503915918f0c0c31094a6e1f",
		"73a6b6f45f6ccc5131e07f2caa1f2e2f56", "2d7379ec1db5952d4e95d30c340b1b1d"},
	{"Wycheproof 81", "0212a8de5007ed87b33f1a7090b6114f9e08cefd9607f2c276bdcfdbc5ce9cd7", "e6b1adf2fd58a8762c65f31b", "", "10f1ecf9c60584665d9ae5efe279e7f7377eea6916d2b111",
		"0843fff52d934fc7a071ea62c0bd351ce85678cde3ea2c9e", "7355fde599006715053813ce696237a8"},
	{"Wycheproof 86", "5b1d1035c0b17ee0b0444767f80a25b8c1b741f4b50a4d3052226baa1c6fb701", "d61040a313ed492823cc065b", "", "d096803181beef9e008ff85d5ddc38ddacf0f09ee5f7e07f1e4079cb64d0dc8f5e6711cd4921a7887de76e2678fdc67618f1185586bfea9d4c685d50e4bb9a82",
		"c7d191b601f86c28b6a1bdef6a57b4f6ee3ae417bc125c381cdf1c4dac184ed1d84f1196206d62cad112b038845720e02c061179a8836f02b93fa7008379a6bf", "f15612f6c40f2e0db6dc76fc4822fcfe"},
	{"Wycheproof 88", "317ba331307f3a3d3d82ee1fdab70f62a155af14daf631307a61b187d413e533", "a6687cf508356b174625deaa", "", "32c1d09107c599d3cce4e782179c966c6ef963689d45351dbe0f6f881db273e54db76fc48fdc5d30f089da838301a5f924bba3c044e19b3ed5aa6be87118554004ca30e0324337d987839412bf8f8bbdd537205d4b0e2120e965373235d6cbd2fb3776ba0a384ec1d9b7c631a0379ff997c3f974a6f7bbf4fd23016211f5fc10acadb5e400d2ff0fdfd193f5c6fc6d4f7271dfd1349ed80fbedaebb155b9b02fb3074495d55f9a2455f59bf6f113191a029c6b0ba75d97cdc0c84f131836337f29f9d96ca448eec0cc46d1ca8b3735661979d83302fec08fffcf5e58f12b1e7050657b1b97c64a4e07e317f554f8310b6ccb49f36d48c57816d24952aada711d4f",
		"d7eebc9587aa21136fa38b41cf0e2db03a7ea2ba9eaddf83d33f781093617bf50f49b2bfe2f7173b113912e2e1775f40edfed8b3b0099b9e1c220dd103be6166210b01029feb24ed9e20614eddc3cebe41b0079a9a8c117b596c90288effd3796fbd0c7e8eab00609a64be3ad9597cdbf3a818c260cd938bdf232e4059ae35a2571a838887fc196912179486e046a62227a4caddce38cbbc37587bb9439ec637602b6818c5cbe3c71a7c4143960533dc74174bd315c8db227b69b55bb7fc30ba1d5213a752ec33925043cefbc1a62943ee5f34d5da01799e69094d732aef52f8e036980d0070e22e173c67c4bbcca61cc1eedbd6016516c592144819df13204dee", "bf0540d34b20f761101bc608b02458f2"},
	{"Wycheproof 91", "e40003d6e08ab80b4bfc8400ef112945a901ec64a1b6536ca92665090d608bc4", "9f095dafe6f6e0fbafbbe02e", "422d5efcffe364905984533f0a579d80b18bda7b29e6e46498effba53c350112c0bbb8dc4ce03bb0c69e1d0baa19f0637108aa4a16b09a281f232839d87b6d0e42be1baa7c67f1be970ea169d3960b9fe0a61f11cd2eb7398c19e641feb43f778e257a397063db5b3a6707e9db62387054f9f9d44f143583e63edad45a00251e5173d7505f22a8bce232e56c2c276a58033ae30d5dbf4e35a862e42af573be38c6406d9b4c7acbf275fe36c0ecf2c4642898a30e6146fac992a16405f98312126b7a3722f5dfb7dd4e4911c1426b2e01d04e9be6db3771100f7d7d4282e4ea585f3646241e807ca64f06a7fa9b7003d710b801d66f517d2d5ebd740872deba13d0", "38c3f44bc5765de1f3d1c3684cd09cddefaf298d",
		"d4a79f729487935950ec032e690ab8fe25c4158e", "876d2f334f47968b10c103859d436db8"},
	{"Wycheproof 92", "00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f", "000000000000000000000000", "", "561008fa07a68f5c61285cd013464eaf",
		"23293e9b07ca7d1b0cae7cc489a973b3", "ffffffffffffffffffffffffffffffff"},
	{"Wycheproof 93", "00112233445566778899aabbccddeeff102132435465768798a9bacbdcedfe0f", "ffffffffffffffffffffffff", "", "c6152244cea1978d3e0bc274cf8c0b3b",
		"7cb6fc7c6abc009efe9551a99f36a421", "00000000000000000000000000000000"},
}

const (
	zeros12 = "000000000000000000000000"
	zeros32 = "0000000000000000000000000000000000000000000000000000000000000000"
	feffe9  = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
)

// The tag and the plaintext are those of the vectors, in all ways to cut the
// ciphertext in two; and no tag with a bit flipped is taken.
func TestGCMVectors(t *testing.T) {
	for _, v := range gcmVectors {
		t.Run(v.name, func(t *testing.T) {
			raw := func(s string) []byte {
				b, err := hex.DecodeString(s)
				require.NoError(t, err)
				return b
			}
			key, iv, aad, plain := raw(v.key), raw(v.iv), raw(v.aad), raw(v.plain)
			object := append(raw(v.cipher), raw(v.tag)...)

			block, err := aes.NewCipher(key)
			require.NoError(t, err)
			aead, err := cipher.NewGCM(block)
			require.NoError(t, err)
			require.Equal(t, aead.Seal(nil, iv, plain, aad), object, "the vector is not one of crypto/cipher")

			for cut := range len(object) + 1 {
				got, err := readRaw(key, iv, aad, object, cut)
				require.NoError(t, err, "cut at %d", cut)
				require.Equal(t, string(plain), string(got), "cut at %d", cut)
			}
			for bit := range 8 * tagBytes {
				forged := append([]byte(nil), object...)
				forged[len(plain)+bit/8] ^= 1 << (bit % 8)
				got, err := readRaw(key, iv, aad, forged)
				require.ErrorIs(t, err, message.Unauthentic)
				require.Nil(t, got)
			}
		})
	}
}
