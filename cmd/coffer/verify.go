package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"coffer/objstore"
)

const verifyLong = `Read every object of a bucket, or below a prefix, and tell which cannot be
trusted: with --cse-keyring every frame and every signature is authenticated,
and an object that is not encrypted for the keys counts as damaged (cse-mode:
auto lets plain objects pass); the store's checksum is compared where it tells
one of what it sends. Nothing is written.

For a path in a mount, a directory or a file, the mount's daemon does it, which
has the keys and the settings. It reads what lies in the store, not what it has
cached. Files that are not stored yet are named, and are no failure.`

// newVerify builds "coffer verify".
func newVerify(a *app) *cobra.Command {
	scratch := defaultConfig()
	var asJSON bool
	var jobs int
	cmd := &cobra.Command{
		Use:   "verify [flags] {PATH | s3://BUCKET[/PREFIX]}",
		Short: "Read all objects and tell which are damaged",
		Long:  verifyLong + "\n\n" + exitCodeHelp,
		Example: "  coffer verify ~/s3/dataset/2026\n  coffer verify --cse-keyring keys.yaml s3://dataset\n" +
			"  coffer verify --json s3://dataset/2026 | jq .damaged",
		Args: argCount(1, 1, "PATH or s3://BUCKET[/PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if jobs < 1 {
				return usageErrorf("--jobs %d is less than 1", jobs)
			}
			verify := a.verifyMounted
			if strings.HasPrefix(args[0], "s3://") {
				verify = a.verifyStore
			}
			report := verifyReport{Damaged: []damagedObject{}, Skipped: []skippedObject{}}
			shown, stop := a.showProgress(args[0], asJSON)
			err := verify(cmd.Flags(), args[0], jobs, func(news verifyReport) error {
				report.add(news)
				shown(news.Bytes)
				return nil
			})
			stop()
			var e *exitError
			if errors.As(err, &e) && e.code == exitUsage {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(a.stdout)
				enc.SetIndent("", "  ")
				if jerr := enc.Encode(report); err == nil {
					err = jerr
				}
			} else {
				report.print(a.stdout)
			}
			if err == nil && len(report.Damaged) > 0 {
				err = fmt.Errorf("%d of %d objects of %s cannot be trusted", len(report.Damaged), report.Objects, args[0])
			}
			return err
		},
	}
	bindFlags(cmd.Flags(), &scratch, storeGroups...)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&jobs, "jobs", 8, "`number` of objects that are read at a time, by a mount at most 16")
	return cmd
}

// errInterrupted tells that what was found is not all.
var errInterrupted = errors.New("interrupted: not all was read")

// verifyStore verifies what s3://BUCKET[/PREFIX] names, with the settings of the flags.
func (a *app) verifyStore(flags *pflag.FlagSet, name string, jobs int, tell func(verifyReport) error) error {
	src, err := parseSource(name)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	if src.Bucket == "" {
		return usageErrorf("verify needs a bucket: s3://BUCKET or s3://BUCKET/PREFIX")
	}
	cfg, err := resolveConfig(flags, a.env, nil)
	if err != nil {
		return err
	}
	cfg.ReadOnly = true
	return a.withStore(cfg, func(ctx context.Context, store *connection) error {
		unseen, err := store.unseen()
		if err != nil {
			return err
		}
		v := newVerifier(unseen, jobs, tell)
		err = v.run(ctx, []source{src})
		switch {
		case ctx.Err() != nil:
			return errInterrupted
		case err == nil && v.listed.Load() == 0 && src.Prefix != "":
			return &objstore.Error{Op: "verify", Key: src.String(), Kind: objstore.NotExist}
		}
		return err
	})
}

// verifyMounted has the daemon of a mount verify what lies at a path in it.
func (a *app) verifyMounted(flags *pflag.FlagSet, name string, jobs int, tell func(verifyReport) error) error {
	var ownSettings error
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "json" && f.Name != "jobs" {
			ownSettings = usageErrorf("--%s is for s3://BUCKET; a mount has its own settings", f.Name)
		}
	})
	if ownSettings != nil {
		return ownSettings
	}
	entry, inside, err := mountOf(name)
	if err != nil {
		return err
	}
	client, err := dialMount(entry, a.env)
	if err != nil {
		return fmt.Errorf("%s: %w", entry.Dir, err)
	}
	defer client.Close()
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer cancel()
	last, err := client.stream(ctx, controlRequest{Op: "verify", Path: inside, Jobs: jobs}, func(piece controlReply) error {
		if piece.Verify == nil {
			return nil
		}
		return tell(*piece.Verify)
	})
	if ctx.Err() != nil {
		return errInterrupted
	}
	if err == nil && !last.Done {
		err = &exitError{max(last.Code, exitFailure), errors.New(last.Error)}
	}
	return err
}

// showProgress shows on a terminal how many bytes were read, until stop is called.
func (a *app) showProgress(what string, quiet bool) (more func(int64), stop func()) {
	f, ok := a.stderr.(*os.File)
	if !ok || quiet || !isTerminal(f) {
		return func(int64) {}, func() {}
	}
	shown := progress.NewWriter()
	shown.SetOutputWriter(f)
	shown.SetUpdateFrequency(tellEvery)
	shown.SetAutoStop(true) // Stop does nothing before Render has begun
	tracker := &progress.Tracker{Message: what, Units: progress.UnitsBytes}
	shown.AppendTracker(tracker)
	done := make(chan struct{})
	go func() {
		defer close(done)
		shown.Render()
	}()
	return tracker.Increment, func() {
		tracker.MarkAsDone()
		<-done
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// print writes the report for a person.
func (r verifyReport) print(w io.Writer) {
	if len(r.Damaged)+len(r.Skipped) > 0 {
		t := newTable(w, "object", "what is wrong")
		for _, d := range r.Damaged {
			t.AppendRow(table.Row{source{d.Bucket, d.Key}, d.Error})
		}
		for _, s := range r.Skipped {
			t.AppendRow(table.Row{source{s.Bucket, s.Key}, s.Reason})
		}
		t.Render()
	}
	fmt.Fprintf(w, "%d objects with %d bytes were read, %d cannot be trusted", r.Objects, r.Bytes, len(r.Damaged))
	if n := len(r.Skipped); n > 0 {
		fmt.Fprintf(w, ", %d are not stored yet", n)
	}
	if r.Gone > 0 {
		fmt.Fprintf(w, ", %d were removed or replaced meanwhile", r.Gone)
	}
	fmt.Fprintln(w)
}
