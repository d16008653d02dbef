package s3ec

import (
	"fmt"

	"coffer/objstore/cse/message"
)

// fail returns an error about a part as a whole. The kinds are those of
// package message, so that one place classifies the errors of both formats:
//
//	NotMessage    no envelope in the metadata
//	Malformed     an envelope that is not whole, or lengths that do not fit
//	Unsupported   V1, CBC, an older wrap, an instruction file: the text says which
//	TooLarge      beyond what AES-GCM seals, or what metadata can be
//	Unauthentic   the wrong key; or the object or its envelope was changed
//	Short         an object that was not given to its end
func fail(kind message.Kind, part, format string, args ...any) *message.Error {
	return &message.Error{Kind: kind, Part: part, Offset: -1, Text: fmt.Sprintf(format, args...)}
}

// The parts that errors speak of.
const (
	envelopePart = "envelope in the metadata"
	keyPart      = "data key"
	objectPart   = "object"
)
