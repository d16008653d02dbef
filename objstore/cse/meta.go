package cse

import (
	"maps"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// User metadata of messages: where everything is, and to which path it is bound.
// Neither is shown to who uses the bucket.
const (
	metaProfile = "coffer-esdk"
	metaBinding = "coffer-bind"
)

// ownMeta is the metadata without what is this package's; it may be meta itself.
func ownMeta(meta map[string]string) map[string]string {
	_, profile := meta[metaProfile]
	_, binding := meta[metaBinding]
	if !profile && !binding {
		return meta
	}
	own := maps.Clone(meta)
	delete(own, metaProfile)
	delete(own, metaBinding)
	if len(own) == 0 {
		return nil
	}
	return own
}

// withMessage is the metadata of a message: the user's, its profile and its binding,
// "" for none.
func withMessage(meta map[string]string, p message.Profile, binding string) map[string]string {
	all := objstore.CloneMeta(ownMeta(meta))
	all[metaProfile] = p.String()
	if binding != "" {
		all[metaBinding] = binding
	}
	return all
}

// checkBinding compares the path that a message was bound to with its own.
func (b *bucket) checkBinding(op, key string, o *opened) error {
	if b.s.cfg.Binding == BindOff {
		return nil
	}
	text, bound := o.object.Meta[metaBinding]
	if !bound && b.s.cfg.Binding == BindWarn {
		return nil // other programs bind to nothing
	}
	err := o.CheckBinding(b.Name(), key, text)
	if err == nil {
		return nil
	}
	if b.s.cfg.Binding == BindStrict {
		return b.failf(op, key, objstore.Integrity, "the object was not stored under this path: %w", err)
	}
	b.s.warnOnce(b.Name()+"/"+key+" "+string(o.object.ETag), "an object was not stored under its path; somebody may have exchanged it for another",
		"key", b.Name()+"/"+key)
	return nil
}
