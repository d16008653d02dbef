package s3store

import (
	"context"
	"net/http"
	"strings"

	"coffer/objstore"
)

// proveKMS shows whether objects come out encrypted under the KMS key of want.
// A key that the store refuses is an error of its own and no sign of a store
// that cannot.
func (sc *scratch) proveKMS(ctx context.Context, want ask) (proved, error) {
	enc, err := sc.putAndLook(ctx, want)
	switch {
	case err == nil:
		sc.b.learn(ctx, sc, want)
		return proved{enc: orNone(enc), send: true}, nil
	case objstore.KindOf(err) != objstore.KeyUnavailable && refusesSSE(err):
		return proved{enc: objstore.Encryption{Mode: objstore.ModeNone}, why: err}, nil
	}
	return proved{}, err
}

// proveCustomer shows whether objects come out encrypted with the customer key
// of want: HEAD with the key must show its MD5, and neither HEAD nor GET may
// be answered without it. Stores are known that ignore the key, and stores
// that keep the MD5 beside the plaintext.
func (sc *scratch) proveCustomer(ctx context.Context, want ask) (proved, error) {
	none := objstore.Encryption{Mode: objstore.ModeNone}
	err := sc.put(ctx, want, nil)
	switch {
	case err == nil:
	case refusesSSE(err):
		return proved{enc: none, why: err}, nil
	case objstore.KindOf(err) == objstore.Permission && sc.put(ctx, ask{}, nil) == nil:
		return proved{}, newError("protect", sc.b.name, objstore.Permission,
			"the bucket takes objects, but none with a customer key (SSE-C): remove SSE-C from the BlockedEncryptionTypes of its encryption "+
				"configuration (PutBucketEncryption with BlockedEncryptionTypes NONE), or choose another mode: %w", err)
	default:
		return proved{}, err
	}
	enc, err := sc.look(withSSE(ctx, want))
	switch {
	case statusOf(err) == http.StatusBadRequest:
		enc = none // it does not know of a key
	case err != nil:
		return proved{}, err
	}
	if enc.CustomerKeyMD5 != want.CustomerKeyMD5 {
		return proved{enc: orNone(enc), send: true}, nil
	}
	bare := context.WithValue(withSSE(ctx, ask{}), keySearchKey{}, &keySearch{expected: refusesKey})
	if _, err = sc.look(bare); err == nil {
		return proved{enc: none, send: true}, nil
	} else if !refusedByClient(err) {
		return proved{}, err
	}
	if err = sc.read(bare); err == nil {
		return proved{enc: none, send: true}, nil
	} else if !refusedByClient(err) {
		return proved{}, err
	}
	sc.b.learn(ctx, sc, want)
	return proved{enc: enc, send: true}, nil
}

// look asks for the scratch object with the key of ctx and no other.
func (sc *scratch) look(ctx context.Context) (objstore.Encryption, error) {
	resp, err := do(ctx, sc.b.s.probe("probe", sc.b.name, sc.key), func(ctx context.Context) (*http.Response, error) {
		return sc.b.wire.send(ctx, newRequest("HeadObject", http.MethodHead, sc.key))
	})
	if err != nil {
		return objstore.Encryption{}, err
	}
	return encryptionIn(resp.Header), nil
}

// read asks for its bytes in the same way.
func (sc *scratch) read(ctx context.Context) error {
	_, err := do(ctx, sc.b.s.probe("probe", sc.b.name, sc.key), func(ctx context.Context) (*http.Response, error) {
		return sc.b.wire.send(ctx, newRequest("GetObject", http.MethodGet, sc.key))
	})
	return err
}

// refusedByClient reports whether err is the refusal that a request without
// its key must meet, rather than a failure.
func refusedByClient(err error) bool {
	s := statusOf(err)
	return s == http.StatusBadRequest || s == http.StatusForbidden
}

// orNone makes none of an encryption without a mode.
func orNone(e objstore.Encryption) objstore.Encryption {
	if !e.Encrypted() {
		e.Mode = objstore.ModeNone
	}
	return e
}

// sameKMSKey compares the KMS key that was asked for with the one that the
// store reports, in whatever form each is: an id, an alias, the ARN of one, or
// MinIO's "arn:aws:kms:" before its own names.
func sameKMSKey(want, got string) verdict {
	if want == "" || want == got {
		return asWanted
	}
	if got == "" {
		return keyUnclear
	}
	if isFullARN(want) && isFullARN(got) && strings.Contains(want, ":alias/") == strings.Contains(got, ":alias/") {
		return otherKey // the same id may exist in two regions
	}
	w, g := keyName(want), keyName(got)
	switch {
	case w == g:
		return asWanted
	case strings.HasPrefix(w, "alias/") != strings.HasPrefix(g, "alias/"):
		return keyUnclear
	}
	return otherKey
}

// isFullARN reports whether id has all six fields of an ARN.
func isFullARN(id string) bool { return strings.HasPrefix(id, "arn:") && strings.Count(id, ":") >= 5 }

// keyName is the part of a key's ARN that names it: "alias/x" or the bare id.
func keyName(id string) string {
	if strings.HasPrefix(id, "arn:") {
		id = id[strings.LastIndexByte(id, ':')+1:]
	}
	return strings.TrimPrefix(id, "key/")
}
