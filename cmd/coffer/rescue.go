package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"coffer/cache"
	"coffer/fs"
	"coffer/objstore"
)

const rescueLong = `When the store refuses a file as it is closed (no permission, an outage, somebody
else's newer version), the program gets the error, and its data is kept: in an
encrypted file in the scratch directory, which outlives the mount (what went out
in order waits in the store as an upload, which the file names), or by the mount
itself where there is no key for such a file; umount then refuses to end it. The
log says where it is. Not kept is what could not be had back: a stream of which
a part was not taken, and changes of a version that is gone.

The files are encrypted under the key of --rescue-key-file, or under a random
one that the kernel keeps in the user's keyring until the machine restarts
(before Linux 5.3: until the user's last process on it ends).`

// newRescue builds "coffer rescue".
func newRescue(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rescue list|commit|discard",
		Short:   "Find and store data that could not be stored",
		Long:    rescueLong + "\n\n" + exitCodeHelp,
		Example: "  coffer rescue list\n  coffer rescue commit 3f2a9c01d2e4\n  coffer rescue discard 3f2a9c01d2e4",
		Args:    argCount(1, 1, "list|commit|discard"),
		RunE: func(_ *cobra.Command, args []string) error {
			return usageErrorf("%q is none of list, commit, discard", args[0])
		},
	}
	cmd.AddCommand(newRescueList(a), newRescueCommit(a), newRescueDiscard(a))
	return cmd
}

func newRescueList(a *app) *cobra.Command {
	scratch := defaultConfig()
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list [--json]",
		Short:   "List what was kept",
		Long:    "List the data that was kept when it could not be stored: in the scratch directory\nand by the mounts of this user.\n\n" + exitCodeHelp,
		Example: "  coffer rescue list\n  coffer rescue list --scratch-dir /local/jobs --json",
		Args:    argCount(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
			if err != nil {
				return err
			}
			files, err := a.rescued(cfg)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(a.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(files)
			}
			printRescued(a, files)
			return nil
		},
	}
	bindFlags(cmd.Flags(), &scratch, groupResources, groupLogging)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// rescued returns what is kept in the scratch directory, and by mounts.
func (a *app) rescued(cfg Config) ([]rescuedItem, error) {
	keys, err := rescueKeys(cfg.RescueKeyFile)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	dir := rescueDir(scratchDir(cfg.ScratchDir, a.env))
	if err := trustDir(dir, os.Getuid()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	files, err := fs.ListRescued(dir, keys...)
	if err != nil {
		return nil, err
	}
	all := []rescuedItem{}
	for _, f := range files {
		all = append(all, newRescuedItem(f))
	}
	eachDaemon(a.env, func(c *controlClient) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		reply, err := c.call(ctx, controlRequest{Op: "status"})
		if err != nil {
			return // it ends at this moment
		}
		for _, r := range reply.Rescued {
			all = append(all, rescuedItem{Rescued: r, PID: reply.PID})
		}
	})
	slices.SortStableFunc(all, func(x, y rescuedItem) int { return x.Time.Compare(y.Time) })
	return all, nil
}

// rescuedItem is one line of "coffer rescue list": kept in File, or by the
// daemon PID.
type rescuedItem struct {
	fs.Rescued
	File  string `json:"file,omitempty"`
	PID   int    `json:"pid,omitempty"`
	Error string `json:"error,omitempty"`
}

func newRescuedItem(f fs.RescuedFile) rescuedItem {
	item := rescuedItem{Rescued: f.Rescued, File: f.Path}
	if f.Err != nil {
		item.Error = f.Err.Error()
	}
	return item
}

// note is what a user has to know before the item can be committed.
func (r rescuedItem) note() string {
	switch {
	case r.Error != "":
		return r.Error
	case r.File == "":
		return fmt.Sprintf("held by the mount of process %d; %s", r.PID, r.Cause)
	case r.Upload:
		return "an upload in the store; " + r.Cause
	case r.NeedsBase:
		return "changes of " + string(r.Base.ETag) + ", which has to be there still; " + r.Cause
	}
	return r.Cause
}

func printRescued(a *app, items []rescuedItem) {
	if len(items) == 0 {
		fmt.Fprintln(a.stdout, "Nothing is kept here.")
		return
	}
	t := newTable(a.stdout, "ID", "closed", "for", "bytes", "note")
	for _, r := range items {
		place, size := "?", "?"
		if r.Bucket != "" {
			place, size = "s3://"+r.Bucket+"/"+r.Key, fmt.Sprint(r.Size)
		}
		t.AppendRow(table.Row{r.ID, r.Time.Local().Format(time.DateTime), place, size, r.note()})
	}
	t.Render()
}

const rescueCommitLong = `Store data that was kept, in its own place or in another one, and end the keeping.
In its own place it may replace only what it was meant to replace, elsewhere
nothing; with --force it replaces whatever is there. When it fails, all is as it
was before.

ID is one of "coffer rescue list", or the path of a file with kept data, as the
log tells it. Endpoint and credentials are those of a mount.`

func newRescueCommit(a *app) *cobra.Command {
	scratch := defaultConfig()
	var to fs.Destination
	cmd := &cobra.Command{
		Use:     "commit [flags] ID [s3://BUCKET/KEY]",
		Short:   "Store what was kept",
		Long:    rescueCommitLong + "\n\n" + exitCodeHelp,
		Example: "  coffer rescue commit 3f2a9c01d2e4\n  coffer rescue commit 3f2a9c01d2e4 s3://dataset/results/run1.mine.h5",
		Args:    argCount(1, 2, "ID [s3://BUCKET/KEY]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
			if err != nil {
				return err
			}
			if len(args) > 1 {
				src, err := parseSource(args[1])
				if err != nil || src.Prefix == "" {
					return usageErrorf("%q is not of the form s3://BUCKET/KEY", args[1])
				}
				to.Bucket, to.Key = src.Bucket, src.Prefix
			}
			item, err := a.findRescued(cfg, args[0])
			if err != nil {
				return err
			}
			if item.File == "" {
				err = a.askHolder(controlRequest{Op: "commit", ID: item.ID, To: &to}, item)
			} else {
				err = a.salvage(cfg, func(ctx context.Context, s fs.Salvage) (err error) {
					item.Rescued, err = s.Commit(ctx, item.File, to)
					return err
				})
			}
			if (errors.Is(err, objstore.Stale) || errors.Is(err, objstore.Exist)) && !to.Force {
				err = fmt.Errorf("%w (--force replaces what is there, or name another place)", err)
			}
			if err != nil {
				return fmt.Errorf("rescue commit %s: %w", args[0], err)
			}
			place := fs.Destination{Bucket: item.Bucket, Key: item.Key}
			if to.Bucket != "" {
				place = to
			}
			fmt.Fprintf(a.stdout, "s3://%s/%s stored (%d bytes).\n", place.Bucket, place.Key, item.Size)
			return nil
		},
	}
	bindFlags(cmd.Flags(), &scratch, append(slices.Clone(storeGroups), groupResources)...)
	cmd.Flags().BoolVar(&to.Force, "force", false, "replace whatever is there now")
	return cmd
}

// findRescued returns what is kept under id, a file's path or an ID.
func (a *app) findRescued(cfg Config, id string) (rescuedItem, error) {
	if strings.ContainsRune(id, filepath.Separator) {
		abs, err := filepath.Abs(id)
		if err != nil {
			return rescuedItem{}, err
		}
		keys, err := rescueKeys(cfg.RescueKeyFile)
		if err != nil {
			return rescuedItem{}, &exitError{exitUsage, err}
		}
		r, err := fs.OpenRescued(abs, keys...)
		if err != nil {
			return rescuedItem{}, err
		}
		return newRescuedItem(r), nil
	}
	items, err := a.rescued(cfg)
	if err != nil {
		return rescuedItem{}, err
	}
	for _, item := range items {
		if item.ID == id {
			return item, nil
		}
	}
	return rescuedItem{}, fmt.Errorf("nothing is kept under %q (coffer rescue list; --scratch-dir, if it was another)", id)
}

// salvage calls do with what it takes to have done with kept files.
func (a *app) salvage(cfg Config, do func(context.Context, fs.Salvage) error) error {
	// What is kept passes through this process in plaintext.
	if err := errors.Join(forbidCore(), hideMemory()); err != nil {
		return err
	}
	keys, err := rescueKeys(cfg.RescueKeyFile)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return a.withStore(cfg, func(ctx context.Context, store *connection) error {
		c, err := cache.New(cache.Config{MemoryBytes: int64(cfg.Memory), ScratchDir: scratchDir(cfg.ScratchDir, a.env), StoreID: store.Identity()})
		if err != nil {
			return err
		}
		err = do(ctx, fs.Salvage{Store: store, StoreID: store.Identity(), ClientSide: store.clientSide, Cache: c, Keys: keys})
		return errors.Join(err, c.Close())
	})
}

// askHolder has the daemon that holds item carry out req.
func (a *app) askHolder(req controlRequest, item rescuedItem) error {
	err := fmt.Errorf("the mount of process %d has ended", item.PID)
	eachDaemon(a.env, func(c *controlClient) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		status, serr := c.call(ctx, controlRequest{Op: "status"})
		cancel()
		if serr != nil || !slices.ContainsFunc(status.Rescued, func(r fs.Rescued) bool { return r.ID == item.ID }) {
			return
		}
		reply, cerr := c.call(context.Background(), req)
		switch {
		case cerr != nil:
			err = cerr
		case !reply.Done:
			err = errors.New(reply.Error)
		default:
			err = nil
		}
	})
	return err
}

const rescueDiscardLong = `Drop data that was kept when it could not be stored. It is LOST. Endpoint and
credentials are needed where it waits in the store as an upload, and then are
those of a mount.`

func newRescueDiscard(a *app) *cobra.Command {
	scratch := defaultConfig()
	cmd := &cobra.Command{
		Use:     "discard [flags] ID...",
		Short:   "Drop what was kept",
		Long:    rescueDiscardLong + "\n\n" + exitCodeHelp,
		Example: "  coffer rescue discard 3f2a9c01d2e4",
		Args:    argCount(1, math.MaxInt, "ID..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range args {
				if err := a.discardRescued(cfg, id); err != nil {
					errs = append(errs, fmt.Errorf("rescue discard %s: %w", id, err))
				}
			}
			return errors.Join(errs...)
		},
	}
	bindFlags(cmd.Flags(), &scratch, append(slices.Clone(storeGroups), groupResources)...)
	return cmd
}

// discardRescued drops what is kept under id.
func (a *app) discardRescued(cfg Config, id string) error {
	item, err := a.findRescued(cfg, id)
	switch {
	case err != nil:
		return err
	case item.File == "":
		return a.askHolder(controlRequest{Op: "discard", ID: item.ID}, item)
	case item.Upload:
		return a.salvage(cfg, func(ctx context.Context, s fs.Salvage) error { return s.DiscardUpload(ctx, item.File) })
	case item.Error != "":
		fmt.Fprintf(a.stderr, "coffer: %s is removed unread (%s); if its data waited in the store as an upload, coffer check --uploads --abort-stale ends that\n", item.File, item.Error)
	}
	return os.Remove(item.File)
}
