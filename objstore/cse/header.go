package cse

import (
	"context"
	"errors"
	"fmt"
	"io"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// firstBytes are asked for to know an object: more than the header of one or two
// recipients, and all of a small file.
const firstBytes = 8 << 10

// prefix returns the first n bytes of an object, or all that it has; there may be more
// than n where they were read before. They belong to the prefix.
type prefix func(n int) ([]byte, error)

// prefixOf fetches the first bytes of a version anew where first, which is there, is not
// enough.
func (b *bucket) prefixOf(ctx context.Context, ref objstore.Ref, stored int64, first []byte) prefix {
	return func(n int) ([]byte, error) {
		if len(first) >= n || int64(len(first)) >= stored {
			return first, nil
		}
		p, _, err := b.fetch(ctx, ref, objstore.Range{Length: int64(n)})
		if err == nil {
			first = p
		}
		return first, err
	}
}

// prefixFrom reads the first bytes of a body from where it begins.
func prefixFrom(body io.Reader) prefix {
	var first []byte
	return func(n int) ([]byte, error) {
		if len(first) >= n {
			return first, nil
		}
		more := make([]byte, n-len(first))
		m, err := io.ReadFull(body, more)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = nil
		}
		first = append(first, more[:m]...)
		return first, err
	}
}

// unwrapper is a keyring, or a cache before it.
type unwrapper interface {
	Unwrap(context.Context, message.Suite, message.Context, []message.EDK) (message.DataKey, keyring.Key, error)
}

// openHeader authenticates the header of a message, and returns the key that opened it.
// With anySuite the message need not commit to its key. Every header is opened here.
func openHeader(ctx context.Context, keys unwrapper, anySuite bool, first prefix) (*message.Opener, keyring.Key, error) {
	p, err := first(firstBytes)
	if err != nil {
		return nil, nil, err
	}
	h, err := message.ParseHeader(p)
	if errors.Is(err, message.Short) {
		if p, err = first(message.MaxHeader); err != nil {
			return nil, nil, err
		}
		h, err = message.ParseHeader(p)
	}
	if err != nil {
		return nil, nil, err
	}
	if !h.Suite.Committing() && !anySuite {
		return nil, nil, &message.Error{Kind: message.Unsupported, Part: "header", Offset: -1,
			Text: fmt.Sprintf("suite %v does not commit to its key (cse-any-suite reads such messages)", h.Suite)}
	}
	key, by, err := keys.Unwrap(ctx, h.Suite, h.Context, h.EDKs)
	if err != nil {
		return nil, nil, err
	}
	o, err := message.NewOpener(h, key, message.Context{})
	return o, by, err
}
