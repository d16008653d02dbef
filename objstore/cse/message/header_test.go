package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rawHeader puts a header together from parts that may be wrong.
type rawHeader struct {
	begin    []byte // version to suite
	context  []byte // with its length
	edks     []byte // with their number
	content  byte
	reserved uint32 // format 1
	ivLength byte   // format 1
	frame    uint32
}

func (r rawHeader) bytes() []byte {
	p := slices.Clone(r.begin)
	if r.begin[0] == 1 {
		p = append(p, make([]byte, 16)...)
	} else {
		p = append(p, make([]byte, 32)...)
	}
	p = append(append(p, r.context...), r.edks...)
	p = append(p, r.content)
	if r.begin[0] == 1 {
		p = binary.BigEndian.AppendUint32(p, r.reserved)
		p = append(p, r.ivLength)
		p = binary.BigEndian.AppendUint32(p, r.frame)
		return append(p, make([]byte, ivBytes+tagBytes)...)
	}
	p = binary.BigEndian.AppendUint32(p, r.frame)
	return append(p, make([]byte, commitmentBytes+tagBytes)...)
}

// entries is a context with its length, whose number of entries may be wrong.
func entries(count uint16, fields ...string) []byte {
	p := binary.BigEndian.AppendUint16(nil, count)
	for _, f := range fields {
		p = appendField(p, f)
	}
	return appendField(nil, p)
}

func format1() rawHeader {
	return rawHeader{begin: []byte{1, 0x80, 1, 0x78}, context: entries(1, "k", "v"),
		edks: []byte{0, 1, 0, 1, 'p', 0, 1, 'i', 0, 1, 'c'}, content: 2, ivLength: 12, frame: 4096}
}

func format2() rawHeader {
	r := format1()
	r.begin = []byte{2, 4, 0x78}
	return r
}

func TestHeadersThatAreRefused(t *testing.T) {
	tests := []struct {
		name   string
		header func() []byte
		kind   Kind
		text   string
	}{
		{"text", func() []byte { return []byte("Hello, world") }, NotMessage, "something else"},
		{"version 3", func() []byte { r := format2(); r.begin[0] = 3; return r.bytes() }, NotMessage, "something else"},
		{"type of format 1", func() []byte { r := format1(); r.begin[1] = 0x81; return r.bytes() }, NotMessage, "something else"},
		{"suite that does not exist", func() []byte { r := format2(); r.begin[2] = 0x79; return r.bytes() }, NotMessage, "something else"},
		{"suite of format 1 in format 2", func() []byte { return append([]byte{2, 1, 0x78}, make([]byte, 600)...) }, NotMessage, "something else"},
		{"suite of format 2 in format 1", func() []byte { return append([]byte{1, 0x80, 4, 0x78}, make([]byte, 600)...) }, NotMessage, "something else"},
		{"base64 of format 1", func() []byte { return []byte("AYADeFqzWEw") }, NotMessage, "base64"},
		{"base64 of format 2", func() []byte { return []byte("AgV4") }, NotMessage, "base64"},
		{"empty context with bytes", func() []byte { r := format2(); r.context = entries(0); return r.bytes() }, Malformed, "byte 37"},
		{"context that ends within a number", func() []byte { r := format2(); r.context = []byte{0, 1, 0}; return r.bytes() }, Malformed, "byte 37: the encryption context ends before the number"},
		{"context that ends within a name", func() []byte { r := format2(); r.context = []byte{0, 5, 0, 1, 0, 9, 'k'}; return r.bytes() }, Malformed, "byte 41: the encryption context ends before the name of entry 0"},
		{"context with fewer entries than it says", func() []byte { r := format2(); r.context = entries(2, "k", "v"); return r.bytes() }, Malformed, "byte 45: the encryption context ends before the name of entry 1"},
		{"context with more entries than it says", func() []byte { r := format2(); r.context = entries(1, "k", "v", "l", "w"); return r.bytes() }, Malformed, "byte 45: 6 bytes after the last entry"},
		{"context out of order", func() []byte { r := format2(); r.context = entries(2, "l", "v", "k", "w"); return r.bytes() }, Malformed, "byte 45: entry 1 of the encryption context is out of order"},
		{"name twice", func() []byte { r := format1(); r.context = entries(2, "k", "v", "k", "w"); return r.bytes() }, Malformed, "byte 30: entry 1 of the encryption context has the name of the one before"},
		{"name that is not UTF-8", func() []byte { r := format2(); r.context = entries(1, "\xff", "v"); return r.bytes() }, Malformed, "byte 39: entry 0 of the encryption context is not UTF-8"},
		{"value that is not UTF-8", func() []byte { r := format2(); r.context = entries(1, "k", "\xc3"); return r.bytes() }, Malformed, "not UTF-8"},
		{"no data key", func() []byte { r := format2(); r.edks = []byte{0, 0}; return r.bytes() }, Malformed, "byte 45: no encrypted data key"},
		{"many data keys", func() []byte {
			r := format2()
			r.edks = binary.BigEndian.AppendUint16(nil, MaxEDKs+1)
			r.edks = append(r.edks, make([]byte, 6*(MaxEDKs+1))...)
			return r.bytes()
		}, TooLarge, "257 encrypted data keys, at most 256"},
		{"content type 0", func() []byte { r := format2(); r.content = 0; return r.bytes() }, Malformed, "byte 56: content type 0"},
		{"content type 3", func() []byte { r := format1(); r.content = 3; return r.bytes() }, Malformed, "byte 41: content type 3"},
		{"reserved bytes", func() []byte { r := format1(); r.reserved = 7; return r.bytes() }, Malformed, "byte 42: the reserved bytes are 7"},
		{"length of the IV", func() []byte { r := format1(); r.ivLength = 16; return r.bytes() }, Malformed, "byte 46: IV of 16 bytes"},
		{"frames of no bytes", func() []byte { r := format2(); r.frame = 0; return r.bytes() }, Malformed, "byte 57: frames of 0 bytes"},
		{"frames in a single block", func() []byte { r := format1(); r.content = 1; return r.bytes() }, Malformed, "byte 47: frames of 4096 bytes in a message without frames"},
		{"long frames", func() []byte { r := format2(); r.frame = MaxFrame + 1; return r.bytes() }, TooLarge, "frames of 67108865 bytes, at most 67108864"},
		{"long context", func() []byte {
			r := format2()
			r.context = entries(1, "k", strings.Repeat("v", 65500))
			return r.bytes()
		}, TooLarge, "headers are read to 65536"},
		{"long data key", func() []byte {
			r := format2()
			r.edks = append([]byte{0, 1, 0, 0, 0, 0, 0xff, 0xff}, make([]byte, 65535)...)
			return r.bytes()
		}, TooLarge, "ciphertext of data key 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := ParseHeader(tt.header())
			require.Nil(t, h)
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.text)
			require.ErrorContains(t, err, "header")
		})
	}
	for _, r := range []rawHeader{format1(), format2()} {
		_, err := ParseHeader(r.bytes())
		require.NoError(t, err, "what the table starts from")
	}
}

// A reader that has a prefix only learns how much it needs, and gets to the
// end in a few steps.
func TestPrefixesOfAHeader(t *testing.T) {
	for _, r := range []rawHeader{format1(), format2()} {
		whole := append(r.bytes(), "the body"...)
		header := int64(len(whole) - len("the body"))
		for n := range header {
			_, err := ParseHeader(whole[:n])
			var short *Error
			require.True(t, errors.As(err, &short))
			require.Equal(t, Short, short.Kind, "%d bytes: %v", n, err)
			require.Greater(t, short.Need, n)
			require.LessOrEqual(t, short.Need, header)
		}
		h, err := ParseHeader(whole)
		require.NoError(t, err)
		require.Equal(t, header, h.Bytes())
		require.Equal(t, whole[:header], h.Raw())
	}
}

func TestHeaderKeepsNothingOfItsInput(t *testing.T) {
	p := format2().bytes()
	h, err := ParseHeader(p)
	require.NoError(t, err)
	for i := range p {
		p[i] = 'x'
	}
	require.Equal(t, format2().bytes(), h.Raw())
	require.Equal(t, []EDK{{"p", "i", []byte("c")}}, h.EDKs)
	require.Equal(t, make([]byte, 32), h.MessageID)
	require.Equal(t, make([]byte, tagBytes), h.tag)
	value, _ := h.Context.Get("k")
	require.Equal(t, "v", value)
}

func TestContext(t *testing.T) {
	c, err := NewContext(map[string]string{"b": "2", "": "empty", "é": "3", "a": ""})
	require.NoError(t, err)
	require.Equal(t, 4, c.Len())
	var names []string
	for k := range c.All() {
		names = append(names, k)
	}
	require.Equal(t, []string{"", "a", "b", "é"}, names)
	require.Equal(t, "\x00\x04\x00\x00\x00\x05empty\x00\x01a\x00\x00\x00\x01b\x00\x012\x00\x02é\x00\x013", string(c.Append(nil)))
	require.Equal(t, len(c.Append(nil)), c.bytes())
	require.Empty(t, Context{}.Append(nil))
	_, ok := c.Get("c")
	require.False(t, ok)
	r := &reader{p: c.Append(nil), end: c.bytes(), item: none, part: "encryption context"}
	again, err := parseContext(r)
	require.NoError(t, err)
	require.Equal(t, c, again)

	for name, tt := range map[string]struct {
		pairs map[string]string
		kind  Kind
	}{
		"reserved name":     {map[string]string{"aws-crypto-x": ""}, Malformed},
		"name not UTF-8":    {map[string]string{"\xff": ""}, Malformed},
		"value not UTF-8":   {map[string]string{"k": "\xff"}, Malformed},
		"beyond the format": {map[string]string{"k": strings.Repeat("v", MaxContext-6)}, TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := NewContext(tt.pairs)
			require.ErrorIs(t, err, tt.kind)
		})
	}
	_, err = NewContext(map[string]string{"k": strings.Repeat("v", MaxContext-7)})
	require.NoError(t, err)
	_, err = c.Join(Context{[]pair{{"b", "2"}}})
	require.ErrorIs(t, err, Malformed, "a name in both")
}

// Whatever the keys and the context, a padded header is a multiple of 1 KiB,
// and the pad is as small as it can be.
func TestPaddedHeaders(t *testing.T) {
	volume, err := NewContext(map[string]string{"coffer-vol": "0123456789"})
	require.NoError(t, err)
	for _, c := range []Context{{}, volume} {
		for n := range 1100 {
			edks := []EDK{{"namespace", "name", make([]byte, n)}}
			bare := committedHeaderBytes(c, edkBytes(edks))

			padded, err := PadContext(c, edkBytes(edks))
			require.NoError(t, err)
			s, err := NewSealer(testKey(Committed), padded, edks, 16)
			require.NoError(t, err)
			got := len(s.Header())
			require.Zero(t, got%HeaderUnit, "%d bytes of data key", n)
			require.Less(t, got-bare, HeaderUnit+17)

			all := PadEDKs(c, edks)
			s, err = NewSealer(testKey(Committed), c, all, 16)
			require.NoError(t, err)
			got = len(s.Header())
			require.Zero(t, got%HeaderUnit, "%d bytes of data key", n)
			require.Less(t, got-bare, HeaderUnit+len(padName)+8)
			for _, e := range all {
				if e.Provider == padName {
					require.NotEmpty(t, e.Info)
					require.NotEmpty(t, e.Ciphertext)
				}
			}
		}
	}
}

func TestMessagesThatAreNotWritten(t *testing.T) {
	reserved := Context{[]pair{{publicKeyName, "k"}}}
	many := make([]EDK, MaxEDKs+1)
	for name, tt := range map[string]struct {
		key     DataKey
		context Context
		edks    []EDK
		frame   int64
		kind    Kind
	}{
		"no key":              {DataKey{}, Context{}, testEDKs, 16, Malformed},
		"key of 16 bytes":     {NewDataKey(make([]byte, 16)), Context{}, testEDKs, 16, Malformed},
		"key of a signature":  {testKey(Committed), reserved, testEDKs, 16, Malformed},
		"no data key":         {testKey(Committed), Context{}, nil, 16, Malformed},
		"many data keys":      {testKey(Committed), Context{}, many, 16, TooLarge},
		"frames of no bytes":  {testKey(Committed), Context{}, testEDKs, 0, TooLarge},
		"long frames":         {testKey(Committed), Context{}, testEDKs, MaxFrame + 1, TooLarge},
		"long field":          {testKey(Committed), Context{}, []EDK{{Ciphertext: make([]byte, 1<<16)}}, 16, TooLarge},
		"header beyond limit": {testKey(Committed), Context{}, []EDK{{Ciphertext: make([]byte, 1<<16-1)}}, 16, TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewSealer(tt.key, tt.context, tt.edks, tt.frame)
			require.ErrorIs(t, err, tt.kind)
			require.Nil(t, s)
		})
	}
}

func TestSniff(t *testing.T) {
	for _, s := range allSuites() {
		begin := []byte{2, byte(s >> 8), byte(s), 0xee}
		if s.Format() == 1 {
			begin = []byte{1, 0x80, byte(s >> 8), byte(s)}
		}
		require.True(t, Sniff(begin), s)
		require.True(t, Sniff(append(bytes.Clone(begin), 1, 2, 3)), s)
		require.False(t, Sniff(begin[:3]), "less than is looked at")
		for i := range min(len(begin), 4-int(s.Format()-1)) {
			other := bytes.Clone(begin)
			other[i] ^= 0x80
			require.False(t, Sniff(other), "%s: %x", s, other)
		}
	}
	require.False(t, Sniff(nil))
	require.False(t, Sniff([]byte{2, 1, 0x78, 0}), "a suite of format 1")
}
