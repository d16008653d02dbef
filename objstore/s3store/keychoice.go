package s3store

import (
	"context"
	"net/http"

	"coffer/objstore"
)

// withKey calls f, which reads ref, with a context that carries the customer
// key which ref needs, trying one after the other: the one asked for by MD5,
// the one remembered, that of the policy, none, the others. Only refusals that
// a key can explain lead to the next one: 400 says that a key is missing or
// not wanted, 403 that it is the wrong one. f returns how the object is
// protected, and that is remembered.
func (b *bucket) withKey(ctx context.Context, o operation, ref objstore.Ref, md5 string, f func(context.Context) (objstore.ETag, objstore.Encryption, error)) error {
	ring := b.s.keys
	if ring.empty() {
		_, _, err := f(ctx)
		return b.explainKey(ctx, o, ref, err, err)
	}
	id := objectID{b.bucketOf(ref), ref.Key, ref.VersionID}
	chosen := md5 != ""
	if chosen {
		if _, ok := ring.find(md5); !ok {
			return newError(o.verb, o.name(), objstore.KeyUnavailable, "no customer key with MD5 %s is configured", md5)
		}
	} else {
		md5, chosen = ring.recall(id, ref.ETag)
	}
	rule := b.s.cfg.rule(id.bucket, ref.Key).Encryption
	policy, _ := ring.find(rule.CustomerKeyMD5)
	order := ring.order(md5, chosen, rule.Mode == objstore.ModeSSEC, policy.MD5())
	search := &keySearch{}
	ctx = context.WithValue(ctx, keySearchKey{}, search)
	err := b.tryKeys(ctx, o, ref, id, order, f)
	if err != nil && search.renewed {
		// Some of the refusals were about the old credentials.
		err = b.tryKeys(ctx, o, ref, id, order, f)
	}
	return err
}

// keySearch is what the retryer and a search for a key tell each other. It
// travels in the context and is touched by one goroutine.
type keySearch struct {
	expected map[int]bool // statuses that a key explains better than credentials do
	renewed  bool         // other credentials are in force since the search began
}

type keySearchKey struct{}

// searchOf returns the search that ctx belongs to; never nil.
func searchOf(ctx context.Context) *keySearch {
	if s, ok := ctx.Value(keySearchKey{}).(*keySearch); ok {
		return s
	}
	return &keySearch{}
}

// Statuses that say something of the key that was or was not sent.
var (
	refusesKey = map[int]bool{http.StatusBadRequest: true, http.StatusForbidden: true}
	wantsKey   = map[int]bool{http.StatusBadRequest: true}
)

// tryKeys calls f with one key after the other.
func (b *bucket) tryKeys(ctx context.Context, o operation, ref objstore.Ref, id objectID, order []string, f func(context.Context) (objstore.ETag, objstore.Encryption, error)) error {
	search := searchOf(ctx)
	var first, bare error
	for _, try := range order {
		search.expected = refusesKey
		if try == "" {
			search.expected = wantsKey
		}
		etag, enc, err := f(withSSE(ctx, ask{Encryption: customerEncryption(try)}))
		if err == nil {
			b.s.keys.remember(id, keyChoice{etag, enc.CustomerKeyMD5})
			return nil
		}
		if first == nil {
			first = err
		}
		if try == "" {
			bare = err
		}
		if !search.expected[statusOf(err)] {
			return err // about something else
		}
	}
	search.expected = nil
	return b.explainKey(ctx, o, ref, first, bare)
}

// customerEncryption is the request's protection with that key; "" is none.
func customerEncryption(md5 string) objstore.Encryption {
	if md5 == "" {
		return objstore.Encryption{}
	}
	return objstore.Encryption{Mode: objstore.ModeSSEC, CustomerKeyMD5: md5}
}

// explainKey finds out whether a refusal means that a customer key is missing.
// bare is the answer to the request without a key. A reply to HEAD says
// nothing but its status, so the first byte is asked for.
func (b *bucket) explainKey(ctx context.Context, o operation, ref objstore.Ref, first, bare error) error {
	if statusOf(bare) != http.StatusBadRequest {
		return first
	}
	code := codeOf(bare)
	if code == "BadRequest" || code == "" {
		_, err := do(ctx, b.s.probe(o.verb, o.bucket, o.key), func(ctx context.Context) (*http.Response, error) {
			r := newRequest("GetObject", http.MethodGet, ref.Key)
			r.version(ref.VersionID)
			r.set("Range", "bytes=0-0")
			r.open = true
			resp, err := b.wireOf(ctx, ref).send(ctx, r)
			if err == nil {
				_ = resp.Body.Close()
			}
			return resp, err
		})
		if err == nil {
			return first
		}
		bare, code = err, codeOf(err)
	}
	switch code {
	case "InvalidRequest", "InvalidArgument":
		return newError(o.verb, o.name(), objstore.KeyUnavailable, "it takes a customer key (SSE-C), and none of the %d configured fits: %w", len(b.s.keys.keys), bare)
	}
	return bare
}

// sourceKey returns the MD5 of the customer key that src needs when it is
// copied, "" for none.
func (b *bucket) sourceKey(ctx context.Context, src objstore.Ref) (string, error) {
	if b.s.keys.empty() {
		return "", nil
	}
	id := objectID{b.bucketOf(src), src.Key, src.VersionID}
	if md5, ok := b.s.keys.recall(id, src.ETag); ok && src.ETag != "" {
		return md5, nil
	}
	obj, err := b.head(ctx, b.s.op("copy", id.bucket, src.Key), src)
	return obj.Encryption.CustomerKeyMD5, err
}
