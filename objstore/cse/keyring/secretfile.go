package keyring

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// SecretFile reads a file that nobody but its owner may read, of at most limit bytes.
// what is the file's name in errors, which show nothing of its content. The caller
// clears the result.
func SecretFile(what, name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %s is not a regular file", what, name)
	}
	if perm := st.Mode().Perm(); perm&^0o600 != 0 {
		return nil, fmt.Errorf("%s %s has mode %04o: others must not be able to read it; run chmod 600 %s", what, name, perm, name)
	}
	text := make([]byte, limit+1)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(text)
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if n > limit {
		clear(text)
		return nil, fmt.Errorf("%s %s is longer than %d bytes", what, name, limit)
	}
	return text[:n], nil
}

// maxKeyText is more bytes than any form of a key takes.
const maxKeyText = 1024

// KeyFile reads a file that holds a key of one of these lengths in bytes: raw, or its
// hex or base64 with white space around. Otherwise as [SecretFile].
func KeyFile(what, name string, sizes ...int) ([]byte, error) {
	text, err := SecretFile(what, name, maxKeyText)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	raw := DecodeKey(text, sizes...)
	if raw == nil {
		return nil, fmt.Errorf("%s %s holds neither %s nor their hex or base64", what, name, lengths(sizes))
	}
	return raw, nil
}

func lengths(sizes []int) string {
	if len(sizes) == 1 {
		return fmt.Sprintf("%d bytes", sizes[0])
	}
	return fmt.Sprintf("%d to %d bytes", slices.Min(sizes), slices.Max(sizes))
}

// DecodeKey returns the bytes of a key file's text, nil when it is none of the forms.
// The result is a copy.
func DecodeKey(text []byte, sizes ...int) []byte {
	if slices.Contains(sizes, len(text)) {
		return bytes.Clone(text)
	}
	text = bytes.TrimSpace(text)
	raw := make([]byte, maxKeyText) // more than any decoder writes
	for _, decode := range []func(dst, src []byte) (int, error){
		hex.Decode, base64.StdEncoding.Decode, base64.RawStdEncoding.Decode, base64.URLEncoding.Decode, base64.RawURLEncoding.Decode,
	} {
		if n, err := decode(raw, text); err == nil && slices.Contains(sizes, n) {
			return raw[:n]
		}
	}
	clear(raw)
	return nil
}
