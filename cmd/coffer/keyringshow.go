package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"coffer/objstore/cse/keyring"
)

const keyringShowLong = `Show who can open a volume key file, or without one which keys the keyring
--cse-keyring has. Nothing secret is shown; fingerprints tell keys of one name
apart. Where a key of --cse-keyring opens the volume key, the list is verified:
nobody has changed it who could not open it.`

// volumeReport and keyringReport are the output of "coffer keyring show --json".
type (
	volumeReport struct {
		ID         string            `json:"id"`
		Verified   bool              `json:"verified"`
		Recipients []recipientReport `json:"recipients"`
	}
	recipientReport struct {
		Key         string `json:"key"`
		Fingerprint string `json:"fingerprint"`
	}
	keyringReport struct {
		Keys []keyReport `json:"keys"`
	}
	keyReport struct {
		Key           string `json:"key"`
		Fingerprint   string `json:"fingerprint"`
		DecryptOnly   bool   `json:"decrypt_only"`
		Authenticates bool   `json:"authenticates"`
	}
)

func newKeyringShow(a *app) *cobra.Command {
	var asJSON bool
	cmd := a.newKeyringCommand(&cobra.Command{
		Use:     "show [flags] [VOLUME]",
		Short:   "Show who opens a volume key, or the keys of a keyring",
		Long:    keyringShowLong,
		Example: "  coffer keyring show volume.key\n  coffer keyring show --cse-keyring keys.yaml --json",
		Args:    argCount(0, 1, "[VOLUME]"),
	}, func(ctx context.Context, cfg Config, args []string) error {
		if len(args) > 0 {
			return a.showVolume(ctx, cfg, args[0], asJSON)
		}
		if cfg.CSEKeyring == "" {
			return usageErrorf("a volume key file is needed, or --cse-keyring")
		}
		return a.showKeyring(ctx, cfg, asJSON)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showVolume(ctx context.Context, cfg Config, name string, asJSON bool) error {
	f, err := keyring.ReadVolume(name)
	if err != nil {
		return err
	}
	note, verified, err := verifyVolume(ctx, cfg, f)
	if err != nil {
		return fmt.Errorf("volume key file %s: %w", name, err)
	}
	report := volumeReport{ID: f.ID, Verified: verified}
	for _, r := range f.Recipients {
		report.Recipients = append(report.Recipients, recipientReport{r.Key, r.Fingerprint})
	}
	if asJSON {
		return a.printJSON(report)
	}
	fmt.Fprintf(a.stdout, "volume key %s, %s\n", f.ID, note)
	t := newTable(a.stdout, "recipient", "fingerprint")
	for _, r := range report.Recipients {
		t.AppendRow(table.Row{r.Key, r.Fingerprint})
	}
	t.Render()
	return nil
}

// verifyVolume opens f if a key is at hand, and says in a few words what that shows.
func verifyVolume(ctx context.Context, cfg Config, f keyring.VolumeFile) (note string, verified bool, err error) {
	if cfg.CSEKeyring == "" {
		return "not verified: that takes --cse-keyring", false, nil
	}
	keys, ids, err := keyring.Openers(ctx, cfg.CSEKeyring, kmsClients(ctx, cfg))
	if err != nil {
		return "", false, &exitError{exitUsage, err}
	}
	v, err := f.Open(ctx, keys...)
	var none *keyring.NoKeyError
	if errors.As(err, &none) {
		return "not verified: no key of the keyring opens it", false, nil
	}
	if err == nil && !v.Authentic() && !slices.Contains(ids, f.ID) {
		return "not verified: anybody with a recipient's public key can make such a file, and the keyring does not tell its id", false, nil
	}
	return "verified", err == nil, err
}

func (a *app) showKeyring(ctx context.Context, cfg Config, asJSON bool) error {
	ring, _, err := keyring.Load(ctx, cfg.CSEKeyring, kmsClients(ctx, cfg))
	if err != nil {
		return &exitError{exitUsage, err}
	}
	var report keyringReport
	for _, m := range ring.Members() {
		report.Keys = append(report.Keys, keyReport{m.Key.String(), keyring.Fingerprint(m.Key), m.DecryptOnly, m.Key.Authenticates()})
	}
	if asJSON {
		return a.printJSON(report)
	}
	t := newTable(a.stdout, "key", "fingerprint", "new files", "who can write under it")
	for _, k := range report.Keys {
		isFor, who := "yes", "who can read"
		if k.DecryptOnly {
			isFor = "no"
		}
		if !k.Authenticates {
			who = "anybody"
		}
		t.AppendRow(table.Row{k.Key, k.Fingerprint, isFor, who})
	}
	t.Render()
	return nil
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
