package cse

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"coffer/objstore/cse/message"
)

// Declared says that the messages of some objects have one profile, so that their sizes
// follow from what a listing tells. A listing does not tell what is encrypted, nor how,
// and nearly every length is possible under every profile: one that is wrong gives wrong
// sizes, until an object is opened.
type Declared struct {
	// Pattern is "bucket" or "bucket/prefix". The bucket part is a [path.Match]
	// pattern, the prefix is compared as it stands.
	Pattern string
	// Profile is zero for that of the messages which the store writes itself.
	Profile message.Profile
}

// abci is the profile of what the recipe in the guide of ABCI 3.0 makes: the defaults of
// the Python library with one RSA key of 4096 bits, called MyAppKeys/S3RSAKey.
var abci = message.Profile{Header: 722, Frame: 4096, Footer: 105}

// The names of profiles.
const (
	nameOwn  = "own"
	nameABCI = "abci"
)

// declaredText is one declaration, at the end of a text or with a colon behind it.
// Prefixes can have colons as well.
var declaredText = regexp.MustCompile(`^(.+?)=(own|abci|h=[0-9]+;f=[0-9]+;s=[0-9]+)(?::|$)`)

// ParseDeclared parses declarations with colons between them, each a pattern, "=" and
// "own", "abci" or the bytes of header, frame and footer, as in "h=722;f=4096;s=105".
func ParseDeclared(text string) (all []Declared, err error) {
	for text != "" {
		m := declaredText.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("%q is not like BUCKET/PREFIX=%s, =%s or =h=722;f=4096;s=105", text, nameOwn, nameABCI)
		}
		text = text[len(m[0]):]
		d := Declared{Pattern: m[1]}
		switch m[2] {
		case nameOwn:
		case nameABCI:
			d.Profile = abci
		default:
			if d.Profile, err = message.ParseProfile("1;" + m[2]); err != nil {
				return nil, err
			}
		}
		if err := d.validate(); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// String returns d as ParseDeclared takes it.
func (d Declared) String() string {
	name := strings.TrimPrefix(d.Profile.String(), "1;")
	switch d.Profile {
	case message.Profile{}:
		name = nameOwn
	case abci:
		name = nameABCI
	}
	return d.Pattern + "=" + name
}

func (d Declared) validate() error {
	bucket, _, _ := strings.Cut(d.Pattern, "/")
	if _, err := path.Match(bucket, ""); err != nil || bucket == "" {
		return fmt.Errorf("%q: the bucket part is not a pattern", d.Pattern)
	}
	return nil
}

func (d Declared) matches(bucket, key string) bool {
	pattern, prefix, _ := strings.Cut(d.Pattern, "/")
	ok, err := path.Match(pattern, bucket)
	return err == nil && ok && strings.HasPrefix(key, prefix)
}

// ownProfile is the profile of new messages. A KMS can make the header longer than is
// known before: then it is that of one or two keys.
func (c Config) ownProfile() message.Profile {
	p := message.Own
	if n, known := c.Keyring.HeaderBytes(c.Context); known {
		p.Header = n
	}
	return p
}

// declared returns the profile that an object is said to have.
func (s *store) declared(bucket, key string) (message.Profile, bool) {
	for _, d := range s.cfg.Declared {
		if d.matches(bucket, key) {
			if d.Profile == (message.Profile{}) {
				return s.own, true
			}
			return d.Profile, true
		}
	}
	return message.Profile{}, false
}
