package message

import "strings"

// HeaderUnit is what Coffer pads headers to a multiple of, in bytes, so that
// the size of a file can be told from that of its object.
const HeaderUnit = 1024

// padName is the name of the entry, and the provider of the data key, that
// only make a header longer.
const padName = "coffer-pad"

// PadContext returns c with an entry that makes a header a multiple of
// [HeaderUnit], whose data keys will have so many bytes together (EDK.Bytes).
// It is called before they are wrapped, since most keyrings authenticate the
// context with them.
func PadContext(c Context, edkBytes int) (Context, error) {
	room := padding(committedHeaderBytes(c, edkBytes))
	if room == 0 {
		return c, nil
	}
	least := Context{[]pair{{padName, "-"}}}.bytes()
	if c.Len() > 0 {
		least -= 2 // the number of entries is there already
	}
	return c.Join(Context{[]pair{{padName, strings.Repeat("-", atLeast(room, least)-least+1)}}})
}

// PadEDKs returns edks and one that nobody can unwrap, which makes a header
// with this context a multiple of [HeaderUnit]. It is for data keys that a KMS
// wraps: their lengths are known only afterwards, and the context is kept in
// the KMS's logs. edks is not changed.
func PadEDKs(c Context, edks []EDK) []EDK {
	room := padding(committedHeaderBytes(c, edkBytes(edks)))
	if room == 0 {
		return edks
	}
	pad := EDK{Provider: padName, Info: "-", Ciphertext: []byte{0}} // the JavaScript SDK wants no field empty
	pad.Ciphertext = make([]byte, atLeast(room, pad.Bytes())-pad.Bytes()+1)
	return append(edks[:len(edks):len(edks)], pad)
}

// PaddedHeader is the length of a header with c as PadContext returns it.
func PaddedHeader(c Context, edkBytes int) (int64, error) {
	c, err := PadContext(c, edkBytes)
	return int64(committedHeaderBytes(c, edkBytes)), err
}

// padding is what n bytes lack to a multiple of HeaderUnit.
func padding(n int) int { return (HeaderUnit - n%HeaderUnit) % HeaderUnit }

// atLeast adds a unit to the room where it does not hold the least that can be
// added.
func atLeast(room, least int) int {
	if room < least {
		room += HeaderUnit
	}
	return room
}
