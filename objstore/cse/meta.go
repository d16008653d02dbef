package cse

import (
	"maps"

	"coffer/objstore"
	"coffer/objstore/cse/message"
	"coffer/objstore/cse/s3ec"
)

// User metadata of messages: where everything is, and to which path it is bound.
// Neither is shown to who uses the bucket, and neither is an envelope of package s3ec:
// on a copy of the plaintext all of them would be wrong.
const (
	metaProfile = "coffer-esdk"
	metaBinding = "coffer-bind"
)

// isFormat reports whether metadata of this name belong to how an object is encrypted.
func isFormat(name string) bool {
	return name == metaProfile || name == metaBinding || s3ec.IsName(name)
}

// hasEnvelope reports whether there are metadata of the S3 Encryption Client.
func hasEnvelope(meta map[string]string) bool {
	for name := range meta {
		if s3ec.IsName(name) {
			return true
		}
	}
	return false
}

// ownMeta is the metadata without what is of a format; it may be meta itself.
func ownMeta(meta map[string]string) map[string]string {
	own := meta
	for name := range meta {
		if isFormat(name) {
			own = maps.Clone(meta)
			maps.DeleteFunc(own, func(name, _ string) bool { return isFormat(name) })
			break
		}
	}
	if len(own) == 0 {
		return nil
	}
	return own
}

// withMessage is the metadata of a message: the user's, its profile, if it has frames,
// and its binding, "" for none.
func withMessage(meta map[string]string, p message.Profile, binding string) map[string]string {
	all := objstore.CloneMeta(ownMeta(meta))
	if p.Frame > 0 {
		all[metaProfile] = p.String()
	}
	if binding != "" {
		all[metaBinding] = binding
	}
	return all
}

// withEnvelope is the metadata of a copy of an object of the S3 Encryption Client: the
// user's, and the envelope of source.
func withEnvelope(meta, source map[string]string) map[string]string {
	all := objstore.CloneMeta(ownMeta(meta))
	for name, value := range source {
		if s3ec.IsName(name) {
			all[name] = value
		}
	}
	return all
}

// checkBinding compares the path that a message was bound to with its own.
func (b *bucket) checkBinding(op, key string, o *opened) error {
	if b.s.cfg.Binding == BindOff {
		return nil
	}
	if o.envelope != 0 {
		if b.s.cfg.Binding == BindStrict {
			return b.failf(op, key, objstore.Integrity, "objects of the S3 Encryption Client are bound to no path, and this mount reads none such (cse-binding: warn does)")
		}
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
