package emulator

import (
	"encoding/xml"
	"net/http"
	"time"
)

// archived tells that the bytes can only be read after RestoreObject. Classes
// such as GLACIER_IR are read at once.
func (v *version) archived(now time.Time) bool {
	switch v.StorageClass {
	case "GLACIER", "DEEP_ARCHIVE":
		return !now.Before(v.Restored)
	}
	return false
}

func errArchived(v *version) error {
	return fail("InvalidObjectState", "The operation is not valid for the object's storage class").with("StorageClass", v.StorageClass)
}

// showRestore tells of a restored copy, as HEAD and GET do.
func (c *call) showRestore(v *version) {
	if !v.Restored.IsZero() {
		c.w.Header().Set("x-amz-restore", `ongoing-request="false", expiry-date="`+v.Restored.UTC().Format(http.TimeFormat)+`"`)
	}
}

// restoreObject makes an archived object readable, at once.
func (s *Server) restoreObject(c *call) error {
	var doc struct {
		XMLName xml.Name `xml:"RestoreRequest"`
		Days    int
	}
	if err := c.readXML(&doc); err != nil {
		return err
	}
	if doc.Days < 1 {
		return errMalformedXML()
	}
	status := http.StatusAccepted
	v, err := c.bucket.change(c.key, c.query.Get("versionId"), func(v *version) error {
		switch v.StorageClass {
		case "GLACIER", "DEEP_ARCHIVE":
		default:
			return fail("InvalidObjectState", "Restore is not allowed for the object's current storage class").with("StorageClass", v.storageClass())
		}
		if !v.archived(s.clock.now()) {
			status = http.StatusOK // there already: only the time changes
		}
		v.Restored = s.clock.now().UTC().AddDate(0, 0, doc.Days)
		return nil
	})
	if err != nil {
		return err
	}
	c.showVersion(v)
	return c.send(status)
}
