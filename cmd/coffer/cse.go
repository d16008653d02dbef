package main

import (
	"log/slog"

	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/cse/keyring"
	"coffer/objstore/s3store"
)

// Values of cse-mode besides those of package cse.
const cseOff = "off"

var (
	cseModes    = []string{string(cse.Require), string(cse.Auto), cseOff}
	cseBindings = []string{string(cse.BindWarn), string(cse.BindStrict), string(cse.BindOff)}
)

// clientEncryption returns how objects are encrypted on this side, nil where they are
// not. It reads the keyring and its keys.
func clientEncryption(cfg Config, log *slog.Logger) (*cse.Config, error) {
	if cfg.CSEKeyring == "" || cfg.CSEMode.value == cseOff {
		return nil, nil
	}
	ring, volume, err := keyring.Load(cfg.CSEKeyring)
	if err != nil {
		return nil, err
	}
	c := &cse.Config{
		Keyring: ring, Volume: volume, Policy: cse.Policy(cfg.CSEMode.value), Binding: cse.Binding(cfg.CSEBinding.value),
		AnySuite: cfg.CSEAnySuite, Logger: log,
	}
	return c, c.Validate()
}

// acceptPlainStore leaves it to the store whether it encrypts as well, but where a mode
// is asked for by name.
func acceptPlainStore(c *s3store.Config) {
	for i, r := range c.Rules {
		if m := r.Encryption.Mode; m == objstore.ModeAuto || m == objstore.ModeNone {
			c.Rules[i].AllowUnencrypted = true
		}
	}
}
