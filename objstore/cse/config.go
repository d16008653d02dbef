package cse

import (
	"errors"
	"fmt"
	"log/slog"

	"coffer/objstore"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// Policy says what is done with objects that are no message.
type Policy string

// The policies.
const (
	// Require refuses to read them. It is the only policy under which what is read
	// is authentic: a store can replace any object by a plain one.
	Require Policy = "require"
	// Auto reads them as they are.
	Auto Policy = "auto"
)

// Binding says what is done about messages that are bound to another path, or to
// none: a store can exchange objects that are all authentic.
type Binding string

// The values of Binding.
const (
	BindOff    Binding = "off"    // neither written nor looked at
	BindWarn   Binding = "warn"   // one that does not fit is logged
	BindStrict Binding = "strict" // one that does not fit, or is missing, is an error
)

// Config configures a store.
type Config struct {
	Keyring *keyring.Ring
	// Context is in every message, authenticated and readable by anybody.
	Context message.Context
	Policy  Policy  // "" is Require
	Binding Binding // "" is BindWarn
	Signed  Signed  // "" is SignedAuto
	// AnySuite reads messages as well that do not commit to their key, which one
	// who wraps keys can make such that two readers see different bytes.
	AnySuite bool
	// Declared tells List the sizes of objects that nobody has opened; the first
	// pattern that matches counts.
	Declared []Declared
	// Sizes outlives the store; nil: nothing does.
	Sizes  Sizes
	Logger *slog.Logger // nil: none
}

func (c Config) withDefaults() Config {
	if c.Policy == "" {
		c.Policy = Require
	}
	if c.Binding == "" {
		c.Binding = BindWarn
	}
	if c.Signed == "" {
		c.Signed = SignedAuto
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Keyring == nil:
		return errors.New("cse: no keyring")
	case c.Policy != Require && c.Policy != Auto:
		return fmt.Errorf("cse: policy %q is neither %q nor %q", c.Policy, Require, Auto)
	case c.Binding != BindOff && c.Binding != BindWarn && c.Binding != BindStrict:
		return fmt.Errorf("cse: binding %q is none of %q, %q, %q", c.Binding, BindOff, BindWarn, BindStrict)
	case c.Signed != SignedAuto && c.Signed != SignedStrict && c.Signed != SignedReject:
		return fmt.Errorf("cse: signed %q is none of %q, %q, %q", c.Signed, SignedAuto, SignedStrict, SignedReject)
	}
	for _, d := range c.Declared {
		if err := d.validate(); err != nil {
			return err
		}
	}
	return nil
}

// modeOf is the word for what protects a message.
func modeOf(byKMS bool) objstore.Mode {
	if byKMS {
		return objstore.ModeCSEKMS
	}
	return objstore.ModeCSEC
}
