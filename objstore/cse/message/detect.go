package message

import "encoding/base64"

// SniffBytes is how many bytes [Sniff] looks at.
const SniffBytes = 4

// Sniff reports whether a prefix begins as a message does. Random bytes do
// with a probability of 2^-23 and do not parse then; only the tag of the
// header is a proof.
func Sniff(prefix []byte) bool {
	return len(prefix) >= SniffBytes && sniff(prefix)
}

// sniff looks at as many of the first bytes as there are.
func sniff(p []byte) bool {
	for s, row := range suites {
		begin, n := [4]byte{1, 0x80, byte(s >> 8), byte(s)}, 4
		if row.format == 2 {
			begin, n = [4]byte{2, byte(s >> 8), byte(s)}, 3
		}
		n = min(n, len(p))
		if string(p[:n]) == string(begin[:n]) {
			return true
		}
	}
	return false
}

// sniffBase64 reports whether the prefix is that of a message in base64, as
// some programs write them: "AYAD", "AgV4" and so on.
func sniffBase64(p []byte) bool {
	if len(p) < 4 {
		return false
	}
	var raw [3]byte
	n, err := base64.StdEncoding.Decode(raw[:], p[:4])
	return err == nil && n == len(raw) && sniff(raw[:])
}
