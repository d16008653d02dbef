package emulator

import (
	"net/http"
	"strings"
	"time"
)

// condition is what a write demands of the current version.
type condition struct {
	absent bool     // If-None-Match: *
	match  []string // If-Match: one of these ETags, or "*"
}

// writeCondition reads the conditions of a PUT, Complete, copy or delete.
func writeCondition(h http.Header) (condition, error) {
	var c condition
	if v := h.Get("If-None-Match"); v != "" {
		if strings.Trim(strings.TrimSpace(v), `"`) != "*" {
			return c, fail("NotImplemented", "A header you provided implies functionality that is not implemented").with("Header", "If-None-Match")
		}
		c.absent = true
	}
	c.match = etagList(h.Get("If-Match"))
	return c, nil
}

// check returns nil when the condition holds of current, which is nil when
// there is no object.
func (c condition) check(key string, current *version) error {
	if c.absent && current != nil {
		return errPrecondition("If-None-Match")
	}
	if len(c.match) == 0 {
		return nil
	}
	if current == nil {
		return errNoSuchKey(key)
	}
	if !matches(c.match, current.ETag) {
		return errPrecondition("If-Match")
	}
	return nil
}

// etagList splits a list of entity tags and takes off quotes and W/.
func etagList(v string) []string {
	var tags []string
	for t := range strings.SplitSeq(v, ",") {
		t = strings.TrimPrefix(strings.TrimSpace(t), "W/")
		if t = strings.Trim(t, `"`); t != "" {
			tags = append(tags, t)
		}
	}
	return tags
}

func matches(list []string, etag string) bool {
	for _, t := range list {
		if t == "*" || t == etag {
			return true
		}
	}
	return false
}

// readCondition checks the conditions of a GET or HEAD, or with the prefix
// "x-amz-copy-source-" those of a copy. It returns 304 or 412 as an apiError.
// The precedence is RFC 9110's, section 13.2.2.
func readCondition(h http.Header, prefix string, v *version) error {
	get := func(name string) string { return h.Get(prefix + name) }
	// Dates of HTTP have whole seconds.
	modified := v.modified().Truncate(time.Second)
	if m := etagList(get("If-Match")); len(m) > 0 {
		if !matches(m, v.ETag) {
			return errPrecondition("If-Match")
		}
	} else if t, err := http.ParseTime(get("If-Unmodified-Since")); err == nil && modified.After(t) {
		return errPrecondition("If-Unmodified-Since")
	}
	unchanged := false
	if m := etagList(get("If-None-Match")); len(m) > 0 {
		unchanged = matches(m, v.ETag)
	} else if t, err := http.ParseTime(get("If-Modified-Since")); err == nil {
		unchanged = !modified.After(t)
	}
	switch {
	case !unchanged:
		return nil
	case prefix != "":
		return errPrecondition(prefix + "If-None-Match")
	}
	return &apiError{Code: "NotModified", Status: http.StatusNotModified, Message: "Not Modified"}
}
