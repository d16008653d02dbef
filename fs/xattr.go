package fs

import (
	"context"
	"encoding/base64"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"coffer/objstore"
)

// The extended attributes of this file system are in the namespace that any
// user may read, so that getfattr -d shows them.
const (
	userPrefix = "user."
	s3Prefix   = "user.s3."
)

// binaryPrefix marks the metadata value of an attribute that is no printable
// ASCII text; base64 follows. A text that begins so is encoded as well.
const binaryPrefix = "base64:"

// encodeValue returns the metadata value of an attribute's value.
func encodeValue(v []byte) string {
	text := len(v) > 0 && v[0] != ' ' && v[len(v)-1] != ' ' && !strings.HasPrefix(string(v), binaryPrefix)
	for _, c := range v {
		text = text && c >= ' ' && c < 0x7f
	}
	if text {
		return string(v)
	}
	return binaryPrefix + base64.StdEncoding.EncodeToString(v)
}

// decodeValue is the inverse of encodeValue; what some other program stored
// is shown as it is.
func decodeValue(s string) string {
	if enc, ok := strings.CutPrefix(s, binaryPrefix); ok {
		if v, err := base64.StdEncoding.DecodeString(enc); err == nil {
			return string(v)
		}
	}
	return s
}

// metaName returns the metadata name of an attribute that can be set. S3
// folds names to lower case, and they travel in HTTP headers.
func metaName(attr string) (string, bool) {
	nm, ok := strings.CutPrefix(attr, userPrefix)
	if !ok || nm == "" || strings.HasPrefix(attr, s3Prefix) || isAttribute(nm) {
		return "", false
	}
	for _, c := range []byte(nm) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return "", false
		}
	}
	return nm, true
}

// encryptionXattrs adds how something is, or will be, protected.
func encryptionXattrs(m map[string]string, e objstore.Encryption) {
	m["user.s3.encryption"] = e.Word()
	set := func(name, v string) {
		if v != "" {
			m[s3Prefix+name] = v
		}
	}
	set("cse", e.CSE)
	set("cse.verified", e.Verified)
	set("sse", e.SSEHeader())
	set("sse.kms-key-id", e.KMSKeyID)
	set("sse.customer-key-md5", e.CustomerKeyMD5)
	if e.BucketKey {
		set("sse.bucket-key", strconv.FormatBool(true))
	}
}

// objectXattrs are those of a committed object.
func objectXattrs(bucket, key string, o objstore.Object) map[string]string {
	m := map[string]string{}
	encryptionXattrs(m, o.Encryption)
	set := func(name, v string) {
		if v != "" {
			m[s3Prefix+name] = v
		}
	}
	set("bucket", bucket)
	set("key", key)
	set("etag", string(o.ETag))
	set("version-id", o.VersionID)
	set("storage-class", o.StorageClass)
	set("content-type", o.Headers.ContentType)
	set("checksum", o.Checksum)
	return m
}

// ownXattrs adds the user's own metadata.
func ownXattrs(m, meta map[string]string) {
	for k, v := range meta {
		if _, ok := metaName(userPrefix + k); ok {
			m[userPrefix+k] = decodeValue(v)
		}
	}
}

// xattrs returns the extended attributes of the file. One that is not
// committed shows what it will get.
func (n *file) xattrs(ctx context.Context) (map[string]string, error) {
	n.mu.Lock()
	pending := n.local || !n.inStore
	askStore := !pending && (!n.complete || n.checked.IsZero() || n.obj.Encryption.Mode == objstore.ModeAuto)
	n.mu.Unlock()
	if askStore {
		if _, err := n.refresh(ctx, false); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	obj, meta := n.obj, objstore.CloneMeta(n.meta)
	n.mu.Unlock()
	m := objectXattrs(n.bucket.Name(), n.key(), obj)
	if pending {
		m = n.fsys.promised(ctx, n.bucket, n.key())
	}
	ownXattrs(m, meta)
	return m, nil
}

// promised returns the attributes of something that the store does not have.
func (f *filesystem) promised(ctx context.Context, b objstore.Bucket, key string) map[string]string {
	m := map[string]string{s3Prefix + "bucket": b.Name()}
	if key != "" {
		m[s3Prefix+"key"] = key
	}
	// An error still comes with what the bucket gives, unless nothing is known.
	if e, err := b.Protection(ctx, key); err == nil || objstore.KindOf(err) == objstore.Unencrypted {
		encryptionXattrs(m, e)
	}
	return m
}

// xattrs returns the extended attributes of the directory: what new files in
// it get, and the metadata of its marker.
func (d *dir) xattrs(ctx context.Context) (map[string]string, error) {
	m := d.fsys.promised(ctx, d.bucket, d.prefix())
	if err := d.needComplete(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	meta := objstore.CloneMeta(d.meta)
	d.mu.Unlock()
	ownXattrs(m, meta)
	return m, nil
}

// xattrer is an inode with extended attributes.
type xattrer interface {
	xattrs(ctx context.Context) (map[string]string, error)
}

// getxattr answers getxattr(2). Names outside of user. are not even asked
// for: the kernel looks for security.capability before every write. ENOTSUP says
// that no file has them, so that ls -l, which looks for two of each file, and
// for three in colours, does so once; after ENODATA it goes on asking.
func (f *filesystem) getxattr(ctx context.Context, x xattrer, attr string, dest []byte) (uint32, syscall.Errno) {
	if !strings.HasPrefix(attr, userPrefix) {
		return 0, syscall.ENOTSUP
	}
	q, end := question(ctx)
	defer end()
	m, err := x.xattrs(q)
	if err != nil {
		return 0, f.errno("getxattr", attr, err)
	}
	v, ok := m[attr]
	if !ok {
		return 0, syscall.ENODATA
	}
	return fillXattr(dest, v)
}

// listxattr answers listxattr(2).
func (f *filesystem) listxattr(ctx context.Context, x xattrer, dest []byte) (uint32, syscall.Errno) {
	q, end := question(ctx)
	defer end()
	m, err := x.xattrs(q)
	if err != nil {
		return 0, f.errno("listxattr", "", err)
	}
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k+"\x00")
	}
	sort.Strings(names)
	return fillXattr(dest, strings.Join(names, ""))
}

// fillXattr copies v, or tells how much room it needs.
func fillXattr(dest []byte, v string) (uint32, syscall.Errno) {
	if len(dest) < len(v) {
		return uint32(len(v)), syscall.ERANGE
	}
	return uint32(copy(dest, v)), 0
}

// setXattr changes metadata as setxattr(2) asks.
func setXattr(meta map[string]string, nm string, data []byte, flags uint32) error {
	const create, replace = 1, 2 // XATTR_CREATE, XATTR_REPLACE
	_, there := meta[nm]
	switch {
	case flags&create != 0 && there:
		return syscall.EEXIST
	case flags&replace != 0 && !there:
		return syscall.ENODATA
	}
	meta[nm] = encodeValue(data)
	room := objstore.MetaMax - attributeRoom
	for name, value := range meta {
		if !isAttribute(name) {
			room -= len(name) + len(value)
		}
	}
	if room < 0 {
		return syscall.ENOSPC
	}
	return nil
}

func removeXattr(meta map[string]string, nm string) error {
	if _, ok := meta[nm]; !ok {
		return syscall.ENODATA
	}
	delete(meta, nm)
	return nil
}

// Getxattr implements gofuse.NodeGetxattrer.
func (n *file) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	return n.fsys.getxattr(ctx, n, attr, dest)
}

// Listxattr implements gofuse.NodeListxattrer.
func (n *file) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	return n.fsys.listxattr(ctx, n, dest)
}

// Setxattr implements gofuse.NodeSetxattrer. ENOTSUP is what mv and cp
// --preserve=all take without a word.
func (n *file) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	nm, ok := metaName(attr)
	if !ok {
		return syscall.ENOTSUP
	}
	return n.editMeta(ctx, "setxattr", func(meta map[string]string) error { return setXattr(meta, nm, data, flags) })
}

// Removexattr implements gofuse.NodeRemovexattrer.
func (n *file) Removexattr(ctx context.Context, attr string) syscall.Errno {
	nm, ok := metaName(attr)
	if !ok {
		return syscall.ENODATA
	}
	return n.editMeta(ctx, "removexattr", func(meta map[string]string) error { return removeXattr(meta, nm) })
}

func (n *file) editMeta(ctx context.Context, op string, edit func(map[string]string) error) syscall.Errno {
	dctx, leave, err := n.change(ctx)
	if err != nil {
		return toErrno(err)
	}
	defer leave()
	err = n.changeMeta(dctx, edit)
	if e, ok := err.(syscall.Errno); ok {
		return e // an answer about the attribute, nothing to log
	}
	return n.fsys.errno(op, n.path(), err)
}

// Getxattr implements gofuse.NodeGetxattrer.
func (d *dir) Getxattr(ctx context.Context, attr string, dest []byte) (uint32, syscall.Errno) {
	return d.fsys.getxattr(ctx, d, attr, dest)
}

// Listxattr implements gofuse.NodeListxattrer.
func (d *dir) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	return d.fsys.listxattr(ctx, d, dest)
}

// Setxattr implements gofuse.NodeSetxattrer.
func (d *dir) Setxattr(ctx context.Context, attr string, data []byte, flags uint32) syscall.Errno {
	nm, ok := metaName(attr)
	if !ok {
		return syscall.ENOTSUP
	}
	return d.editMeta(ctx, func(meta map[string]string) error { return setXattr(meta, nm, data, flags) })
}

// Removexattr implements gofuse.NodeRemovexattrer.
func (d *dir) Removexattr(ctx context.Context, attr string) syscall.Errno {
	nm, ok := metaName(attr)
	if !ok {
		return syscall.ENODATA
	}
	return d.editMeta(ctx, func(meta map[string]string) error { return removeXattr(meta, nm) })
}

func (d *dir) editMeta(ctx context.Context, edit func(map[string]string) error) syscall.Errno {
	err := d.changeMeta(ctx, edit)
	if e, ok := err.(syscall.Errno); ok {
		return e
	}
	return d.fsys.errno("setxattr", path(d.bucket, d.prefix()), err)
}

// Setxattr implements gofuse.NodeSetxattrer: the account has no metadata.
func (r *root) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.ENOTSUP
}
