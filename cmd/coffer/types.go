package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"coffer/fs"
)

// The value types below serve flags, environment, -o and the config file
// alike: each is a pflag.Value and unmarshals from the raw YAML scalar, so
// that "0027" means the same octal number everywhere.

// byteSize is a number of bytes, written as "512MiB", "2G" or "1073741824".
// Units are powers of 1024; the zero value means that Coffer chooses.
type byteSize int64

var sizeUnits = []struct {
	suffix string
	shift  uint
}{{"K", 10}, {"M", 20}, {"G", 30}, {"T", 40}}

// parseByteSize parses digits with an optional unit: K, KB, KiB and so on.
func parseByteSize(s string) (byteSize, error) {
	t := strings.ToUpper(strings.TrimSpace(s))
	t = strings.TrimSuffix(strings.TrimSuffix(t, "B"), "I")
	var shift uint
	for _, u := range sizeUnits {
		if strings.HasSuffix(t, u.suffix) {
			t, shift = strings.TrimSuffix(t, u.suffix), u.shift
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(t), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size such as 512MiB or 2G", s)
	}
	return byteSize(n << shift), nil
}

func (b *byteSize) Set(s string) (err error) {
	if strings.EqualFold(strings.TrimSpace(s), "auto") {
		*b = 0
		return nil
	}
	*b, err = parseByteSize(s)
	return err
}

func (b *byteSize) Type() string { return "size" }

func (b byteSize) String() string {
	if b == 0 {
		return "auto"
	}
	for i := len(sizeUnits) - 1; i >= 0; i-- {
		if u := sizeUnits[i]; b%(1<<u.shift) == 0 {
			return fmt.Sprintf("%d%siB", b>>u.shift, u.suffix)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

func (b *byteSize) UnmarshalYAML(raw []byte) error { return b.Set(scalar(raw)) }

// sizeLimit is a number of bytes as byteSize is; 0 is no limit.
type sizeLimit int64

func (l *sizeLimit) Set(s string) error {
	if s == "unlimited" {
		*l = 0
		return nil
	}
	n, err := parseByteSize(s)
	*l = sizeLimit(n)
	return err
}

func (l *sizeLimit) Type() string { return "size" }

func (l sizeLimit) String() string {
	if l == 0 {
		return "unlimited"
	}
	return byteSize(l).String()
}

func (l *sizeLimit) UnmarshalYAML(raw []byte) error { return l.Set(scalar(raw)) }

// ownerID is a user or group id; -1 stands for that of the process.
type ownerID int64

func (o *ownerID) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 32)
	// The highest value means "no change" to chown(2) and is nobody's id.
	if err != nil || n == math.MaxUint32 {
		return fmt.Errorf("%q is not a numeric id", s)
	}
	*o = ownerID(n)
	return nil
}

func (o *ownerID) Type() string { return "id" }

func (o ownerID) String() string {
	if o < 0 {
		return "own"
	}
	return strconv.FormatInt(int64(o), 10)
}

func (o *ownerID) UnmarshalYAML(raw []byte) error { return o.Set(scalar(raw)) }

// or returns the id, or self where none was given.
func (o ownerID) or(self int) uint32 {
	if o < 0 {
		return uint32(self)
	}
	return uint32(o)
}

// octal is a set of permission bits, written in octal.
type octal uint32

func (o *octal) Set(s string) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return fmt.Errorf("%q is not an octal number up to 777", s)
	}
	*o = octal(n)
	return nil
}

func (o *octal) Type() string                   { return "octal" }
func (o octal) String() string                  { return fmt.Sprintf("%03o", uint32(o)) }
func (o *octal) UnmarshalYAML(raw []byte) error { return o.Set(scalar(raw)) }

// choice is a string that must be one of a fixed set.
type choice struct {
	value   string
	allowed []string
}

func (c *choice) Set(s string) error {
	for _, a := range c.allowed {
		if s == a {
			c.value = s
			return nil
		}
	}
	return fmt.Errorf("%q is not one of %s", s, strings.Join(c.allowed, ", "))
}

func (c *choice) Type() string                   { return strings.Join(c.allowed, "|") }
func (c choice) String() string                  { return c.value }
func (c *choice) UnmarshalYAML(raw []byte) error { return c.Set(scalar(raw)) }

// lifetime is for how long something is believed.
type lifetime time.Duration

func (l *lifetime) Set(s string) error {
	if s == "indefinite" {
		*l = lifetime(fs.Indefinite)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return fmt.Errorf("%q is neither a duration such as 10s nor indefinite", s)
	}
	*l = lifetime(d)
	return nil
}

func (l *lifetime) Type() string { return "duration" }

func (l lifetime) String() string {
	if l == lifetime(fs.Indefinite) {
		return "indefinite"
	}
	return time.Duration(l).String()
}

func (l *lifetime) UnmarshalYAML(raw []byte) error { return l.Set(scalar(raw)) }

// scalar strips the quotes and white space of a raw YAML scalar.
func scalar(raw []byte) string {
	s := strings.TrimSpace(string(raw))
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	return s
}
