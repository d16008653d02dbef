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
	// Volume names the volume in the context of every message; "" for none.
	Volume  string
	Policy  Policy  // "" is Require
	Binding Binding // "" is BindWarn
	// AnySuite reads messages as well that do not commit to their key, which one
	// who wraps keys can make such that two readers see different bytes.
	AnySuite bool
	Logger   *slog.Logger // nil: none
}

func (c Config) withDefaults() Config {
	if c.Policy == "" {
		c.Policy = Require
	}
	if c.Binding == "" {
		c.Binding = BindWarn
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// volumeEntry is the name of the volume in contexts.
const volumeEntry = "coffer-vol"

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
	}
	_, err := c.context()
	return err
}

// context is that of new messages.
func (c Config) context() (message.Context, error) {
	if c.Volume == "" {
		return message.Context{}, nil
	}
	return message.NewContext(map[string]string{volumeEntry: c.Volume})
}

// modeOf is the word for what protects a message.
func modeOf(byKMS bool) objstore.Mode {
	if byKMS {
		return objstore.ModeCSEKMS
	}
	return objstore.ModeCSEC
}
