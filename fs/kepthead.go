package fs

import (
	"encoding/binary"
	"time"

	"coffer/objstore"
)

// keptHead is an Object in little room, but for its key: a third of what the
// struct and its map of metadata take.
type keptHead struct {
	own    string // what differs from object to object
	common string // what many objects share, and the memory of it
}

const (
	keptSizeKnown = 1 << iota
	keptBucketKey
	keptChecksumOfWhole
	keptArchived
)

func flagOf(set bool, flag uint64) uint64 {
	if set {
		return flag
	}
	return 0
}

// keepHead packs o.
func keepHead(o objstore.Object) keptHead {
	var b packer
	b.text(string(o.ETag), o.VersionID, o.Checksum)
	b.number(uint64(o.Size), uint64(o.StoredSize))
	if o.LastModified.IsZero() {
		b.number(0)
	} else {
		b.number(uint64(o.LastModified.UnixNano()))
	}
	for k, v := range o.Meta {
		b.text(k, v)
	}
	k := keptHead{own: string(b)}
	b = b[:0]
	b.number(flagOf(o.SizeKnown, keptSizeKnown) | flagOf(o.Encryption.BucketKey, keptBucketKey) |
		flagOf(o.ChecksumOfWhole, keptChecksumOfWhole) | flagOf(o.Archived, keptArchived))
	e, h := &o.Encryption, &o.Headers
	b.text(o.StorageClass, string(e.Mode), string(e.CSEMode), e.KMSKeyID, e.CustomerKeyMD5, e.CSE, e.Verified,
		h.ContentType, h.ContentEncoding, h.ContentLanguage, h.ContentDisposition, h.CacheControl, h.Expires)
	k.common = string(b)
	return k
}

// object unpacks k, whose key is key.
func (k keptHead) object(key string) objstore.Object {
	own, common := unpacker(k.own), unpacker(k.common)
	o := objstore.Object{}
	o.Key = key
	o.ETag, o.VersionID, o.Checksum = objstore.ETag(own.text()), own.text(), own.text()
	o.Size, o.StoredSize = int64(own.number()), int64(own.number())
	if at := own.number(); at != 0 {
		o.LastModified = time.Unix(0, int64(at)).UTC()
	}
	for own != "" {
		if o.Meta == nil {
			o.Meta = map[string]string{}
		}
		name := own.text()
		o.Meta[name] = own.text()
	}
	flags := common.number()
	o.SizeKnown, o.Encryption.BucketKey = flags&keptSizeKnown != 0, flags&keptBucketKey != 0
	o.ChecksumOfWhole, o.Archived = flags&keptChecksumOfWhole != 0, flags&keptArchived != 0
	e, h := &o.Encryption, &o.Headers
	o.StorageClass, e.Mode, e.CSEMode = common.text(), objstore.Mode(common.text()), objstore.Mode(common.text())
	for _, field := range []*string{&e.KMSKeyID, &e.CustomerKeyMD5, &e.CSE, &e.Verified,
		&h.ContentType, &h.ContentEncoding, &h.ContentLanguage, &h.ContentDisposition, &h.CacheControl, &h.Expires} {
		*field = common.text()
	}
	return o
}

// packer writes texts, each behind its length, and numbers.
type packer []byte

func (p *packer) number(numbers ...uint64) {
	for _, n := range numbers {
		*p = binary.AppendUvarint(*p, n)
	}
}

func (p *packer) text(texts ...string) {
	for _, t := range texts {
		*p = append(binary.AppendUvarint(*p, uint64(len(t))), t...)
	}
}

// unpacker reads what a packer wrote.
type unpacker string

func (u *unpacker) number() uint64 {
	var n uint64
	for i, shift := 0, 0; ; i, shift = i+1, shift+7 {
		c := (*u)[i]
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			*u = (*u)[i+1:]
			return n
		}
	}
}

func (u *unpacker) text() string {
	n := u.number()
	t := string((*u)[:n])
	*u = (*u)[n:]
	return t
}
