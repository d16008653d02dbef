package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/signal"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"coffer/objstore/cse/keyring"
)

const keyringLong = `Make and change volume key files, and show what is in them and in keyrings. A
volume key stands between objects and those who read them: objects are encrypted
for it, and a small file holds it, wrapped for each recipient. So recipients are
added and removed without touching an object. In a keyring it is an entry

  - {type: volume-key, file: volume.key, id: ..., keys: [...]}

where keys are the recipient's own, which open the file, and id, which show and
init tell, is what only this volume key has: under an RSA key everybody can make
a file with another one.`

// newKeyring builds "coffer keyring".
func newKeyring(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keyring init|add|remove|show",
		Short: "Make volume keys, and change who opens them",
		Long:  keyringLong + "\n\n" + exitCodeHelp,
		Example: "  coffer keyring init --for group.yaml volume.key\n" +
			"  coffer keyring add --cse-keyring keys.yaml --for bob.yaml volume.key\n" +
			"  coffer keyring remove --cse-keyring keys.yaml volume.key lab/bob\n" +
			"  coffer keyring show volume.key",
		Args: argCount(1, 1, "init|add|remove|show"),
		RunE: func(_ *cobra.Command, args []string) error {
			return usageErrorf("%q is none of init, add, remove, show", args[0])
		},
	}
	cmd.AddCommand(newKeyringInit(a), newKeyringAdd(a), newKeyringRemove(a), newKeyringShow(a))
	return cmd
}

const keyringInitLong = `Make a volume key and write the file that holds it, wrapped for the keys of the
keyring --for, which are those of the recipients: public RSA keys, raw AES keys,
keys of a KMS. A file that is there is never overwritten. Keep a copy: without
it no object can be read.`

func newKeyringInit(a *app) *cobra.Command {
	var to string
	cmd := a.newKeyringCommand(&cobra.Command{
		Use:     "init [flags] --for FILE VOLUME",
		Short:   "Make a volume key file",
		Long:    keyringInitLong,
		Example: "  coffer keyring init --for group.yaml volume.key",
		Args:    argCount(1, 1, "VOLUME"),
	}, func(ctx context.Context, cfg Config, args []string) error {
		recipients, err := recipientsOf(ctx, cfg, to)
		if err != nil {
			return err
		}
		v, err := keyring.NewVolume(ctx, recipients...)
		if err != nil {
			return fmt.Errorf("keyring init %s: %w", args[0], err)
		}
		f := v.File()
		if err := keyring.CreateVolume(args[0], f); err != nil {
			return fmt.Errorf("keyring init: %w", err)
		}
		fmt.Fprintf(a.stdout, "%s holds the volume key %s, for:\n", args[0], f.ID)
		for _, r := range f.Recipients {
			fmt.Fprintf(a.stdout, "  %s\n", r.Key)
		}
		fmt.Fprintf(a.stdout, "In their keyrings, with a key of each one's own:\n  - {type: volume-key, file: %s, id: %s, keys: [...]}\n", args[0], f.ID)
		return nil
	})
	bindRecipients(cmd, &to)
	return cmd
}

const keyringAddLong = `Wrap a volume key for more recipients, the keys of the keyring --for. A key of
the keyring --cse-keyring has to open it: one of its own, or of an entry for the
volume key. The new recipients can read all objects of the volume, old and new.`

func newKeyringAdd(a *app) *cobra.Command {
	var to string
	cmd := a.newKeyringCommand(&cobra.Command{
		Use:     "add [flags] --for FILE VOLUME",
		Short:   "Let others open a volume key",
		Long:    keyringAddLong,
		Example: "  coffer keyring add --cse-keyring keys.yaml --for bob.yaml volume.key",
		Args:    argCount(1, 1, "VOLUME"),
	}, func(ctx context.Context, cfg Config, args []string) error {
		recipients, err := recipientsOf(ctx, cfg, to)
		if err != nil {
			return err
		}
		f, err := changeVolume(ctx, cfg, args[0], func(v *keyring.Volume) (*keyring.Volume, error) { return v.Add(ctx, recipients...) })
		if err != nil {
			return fmt.Errorf("keyring add: %w", err)
		}
		for _, r := range f.Recipients[len(f.Recipients)-len(recipients):] {
			fmt.Fprintf(a.stdout, "%s added; its fingerprint is %s.\n", r.Key, r.Fingerprint)
		}
		return nil
	})
	bindRecipients(cmd, &to)
	return cmd
}

const keyringRemoveLong = `Take recipients out of a volume key file: by name, as show tells it, or by
fingerprint. A key of --cse-keyring has to open it.

Nothing is taken back that way. Who has opened the volume key once, or keeps an
old copy of the file, can read all objects, and those that are still to come. To
shut somebody out, make a new volume key for the others, put it into their
keyrings before the old one, and mark that decrypt_only: true.`

func newKeyringRemove(a *app) *cobra.Command {
	return a.newKeyringCommand(&cobra.Command{
		Use:     "remove [flags] VOLUME RECIPIENT...",
		Short:   "Take recipients out of a volume key file",
		Long:    keyringRemoveLong,
		Example: "  coffer keyring remove --cse-keyring keys.yaml volume.key lab/bob",
		Args:    argCount(2, math.MaxInt, "VOLUME RECIPIENT..."),
	}, func(ctx context.Context, cfg Config, args []string) error {
		var gone []keyring.VolumeRecipient
		_, err := changeVolume(ctx, cfg, args[0], func(v *keyring.Volume) (*keyring.Volume, error) {
			for _, name := range args[1:] {
				var r keyring.VolumeRecipient
				var err error
				if v, r, err = v.Remove(name); err != nil {
					return nil, err
				}
				gone = append(gone, r)
			}
			return v, nil
		})
		if err != nil {
			return fmt.Errorf("keyring remove: %w", err)
		}
		for _, r := range gone {
			fmt.Fprintf(a.stdout, "%s removed. Who has opened the volume key before can still read.\n", r.Key)
		}
		return nil
	})
}

// newKeyringCommand completes a command about keyrings.
func (a *app) newKeyringCommand(cmd *cobra.Command, do func(context.Context, Config, []string) error) *cobra.Command {
	scratch := defaultConfig()
	cmd.Long += "\n\n" + exitCodeHelp
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
		if err != nil {
			return err
		}
		// Keys pass through this process.
		if err := errors.Join(forbidCore(), hideMemory()); err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
		defer cancel()
		return do(ctx, cfg, args)
	}
	bindFlags(cmd.Flags(), &scratch, storeGroups...)
	return cmd
}

func bindRecipients(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "for", "", "keyring `file` with the keys of the recipients; those that are decrypt_only are none")
}

// recipientsOf reads the keys of --for.
func recipientsOf(ctx context.Context, cfg Config, file string) ([]keyring.Recipient, error) {
	if file == "" {
		return nil, usageErrorf("--for is needed: the keyring file with the keys of the recipients")
	}
	all, err := keyring.Recipients(ctx, file, kmsClients(ctx, cfg))
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return all, nil
}

// changeVolume changes a volume key file that a key of --cse-keyring opens.
func changeVolume(ctx context.Context, cfg Config, name string, change func(*keyring.Volume) (*keyring.Volume, error)) (changed keyring.VolumeFile, err error) {
	if cfg.CSEKeyring == "" {
		return changed, usageErrorf("--cse-keyring is needed: a key in it has to open the volume key")
	}
	keys, ids, err := keyring.Openers(ctx, cfg.CSEKeyring, kmsClients(ctx, cfg))
	if err != nil {
		return changed, &exitError{exitUsage, err}
	}
	err = keyring.UpdateVolume(name, func(f keyring.VolumeFile) (keyring.VolumeFile, error) {
		if len(ids) > 0 && !slices.Contains(ids, f.ID) {
			return f, fmt.Errorf("%s is of the volume key %s, and the keyring names %s", name, f.ID, strings.Join(ids, ", "))
		}
		v, err := f.Open(ctx, keys...)
		if err == nil {
			v, err = change(v)
		}
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		changed = v.File()
		return changed, nil
	})
	return changed, err
}
