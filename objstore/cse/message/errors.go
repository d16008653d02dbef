package message

import (
	"fmt"
	"strings"
)

// Kind classifies an error by what a caller can do about it. A Kind is itself
// an error, so that errors.Is(err, message.Short) reads as it should.
type Kind int

// The kinds.
const (
	// NotMessage: the bytes do not begin as a message does.
	NotMessage Kind = iota + 1
	// Short: a prefix ends too early. Error.Need says how much is needed.
	Short
	// Malformed: the bytes are no message of the format, or are not of the
	// length that they must have.
	Malformed
	// Unsupported: of the format, and not read or not made here.
	Unsupported
	// TooLarge: beyond one of the limits.
	TooLarge
	// Unauthentic: a tag, a commitment or a signature is not the one that the
	// data key makes; damaged, forged, or of another message.
	Unauthentic
	// Sealed: the frame was sealed before, or the message has ended.
	Sealed
)

var kindText = [...]string{
	NotMessage: "not an encrypted message", Short: "message cut short", Malformed: "malformed message",
	Unsupported: "unsupported message", TooLarge: "message beyond the limits",
	Unauthentic: "message not authentic", Sealed: "sealed already",
}

// Error returns the kind in words.
func (k Kind) Error() string {
	if k < 1 || int(k) >= len(kindText) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return kindText[k]
}

// Error says what is wrong with a message, and where. Its text holds nothing
// of the plaintext and nothing of a key.
type Error struct {
	Kind Kind
	// Part is "header", "final frame", "footer", ..., or "frame" with a number
	// that counts from 0.
	Part string
	// Offset is where in the part, in bytes; negative when it is the whole.
	Offset int64
	// Need is set with Short only: so many bytes are needed, counted like
	// those that were given. With fewer the answer would be Short again.
	Need int64
	Text string
}

// Error returns one line: kind, part, offset and what is wrong.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if e.Part != "" {
		b.WriteString(": " + e.Part)
		if e.Offset >= 0 {
			fmt.Fprintf(&b, ", byte %d", e.Offset)
		}
	}
	if e.Text != "" {
		b.WriteString(": " + e.Text)
	}
	return b.String()
}

// Is reports whether target is the error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// fail returns an error about a part as a whole.
func fail(kind Kind, part, format string, args ...any) *Error {
	return &Error{Kind: kind, Part: part, Offset: -1, Text: fmt.Sprintf(format, args...)}
}

func frameName(i int64) string { return fmt.Sprintf("frame %d", i) }
