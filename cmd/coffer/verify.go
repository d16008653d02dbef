package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"coffer/objstore"
	"coffer/objstore/cse"
)

const verifyLong = `Read every object of a bucket, or below a prefix, and tell which cannot be
trusted: with --cse-keyring every frame and every signature is authenticated, and
an object that is not encrypted for the keys counts as damaged (cse-mode: auto
lets plain objects pass); the store's checksum is compared where it tells one of
what it sends. Nothing is written.`

// verifyReport is the output of "coffer verify --json".
type verifyReport struct {
	Objects int64           `json:"objects"`
	Bytes   int64           `json:"bytes"`
	Damaged []damagedObject `json:"damaged"`
}

type damagedObject struct {
	Key   string `json:"key"`
	Error string `json:"error"`
}

// newVerify builds "coffer verify".
func newVerify(a *app) *cobra.Command {
	scratch := defaultConfig()
	var asJSON bool
	var jobs int
	cmd := &cobra.Command{
		Use:     "verify [flags] s3://BUCKET[/PREFIX]",
		Short:   "Read all objects and tell which are damaged",
		Long:    verifyLong + "\n\n" + exitCodeHelp,
		Example: "  coffer verify --cse-keyring keys.yaml s3://dataset\n  coffer verify --json s3://dataset/2026 | jq .damaged",
		Args:    argCount(1, 1, "s3://BUCKET[/PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := parseSource(args[0])
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if src.Bucket == "" {
				return usageErrorf("verify needs a bucket: s3://BUCKET or s3://BUCKET/PREFIX")
			}
			if jobs < 1 {
				return usageErrorf("--jobs %d is less than 1", jobs)
			}
			cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
			if err != nil {
				return err
			}
			cfg.ReadOnly, cfg.CSESigned.value = true, string(cse.SignedStrict)
			var report verifyReport
			err = a.withStore(cfg, func(ctx context.Context, store *connection) error {
				show := io.Writer(io.Discard)
				if f, ok := a.stderr.(*os.File); ok && isTerminal(f) && !asJSON {
					show = f
				}
				return verifyBucket(ctx, store, src, jobs, show, &report)
			})
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
	cmd.Flags().IntVar(&jobs, "jobs", 8, "`number` of objects that are read at a time")
	return cmd
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// verifyBucket reads the objects of src, and shows how far it is.
func verifyBucket(ctx context.Context, store objstore.Store, src source, jobs int, show io.Writer, report *verifyReport) error {
	b, err := store.Open(ctx, src.Bucket)
	if err != nil {
		return err
	}
	prefix := ""
	if src.Prefix != "" {
		prefix = src.Prefix + "/"
	}
	shown := progress.NewWriter()
	shown.SetOutputWriter(show)
	shown.SetUpdateFrequency(200 * time.Millisecond)
	tracker := &progress.Tracker{Message: src.String(), Units: progress.UnitsBytes}
	shown.AppendTracker(tracker)
	done := make(chan struct{})
	go func() {
		defer close(done)
		shown.Render()
	}()
	defer func() {
		tracker.MarkAsDone()
		shown.Stop()
		<-done
	}()
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(jobs)
	damaged := []damagedObject{}
	for e, lerr := range b.List(ctx, objstore.Query{Prefix: prefix}) {
		if lerr != nil {
			err = lerr
			break
		}
		if strings.HasSuffix(e.Key, "/") {
			continue // a directory's marker
		}
		g.Go(func() error {
			n, err := readWhole(ctx, b, e)
			tracker.Increment(n)
			mu.Lock()
			defer mu.Unlock()
			switch objstore.KindOf(err) {
			case objstore.NotExist:
				return nil // removed since it was listed
			case objstore.Integrity, objstore.Unsupported, objstore.KeyUnavailable:
				damaged, err = append(damaged, damagedObject{e.Key, err.Error()}), nil
			}
			report.Objects++
			report.Bytes += n
			return err
		})
	}
	if gerr := g.Wait(); err == nil {
		err = gerr
	}
	report.Damaged = damaged
	return err
}

// readWhole reads an object and returns how many bytes it has.
func readWhole(ctx context.Context, b objstore.Bucket, e objstore.Entry) (int64, error) {
	body, _, err := b.Get(ctx, objstore.Ref{Key: e.Key}, objstore.GetOptions{})
	if err != nil {
		return 0, err
	}
	defer body.Close()
	return io.Copy(io.Discard, body)
}

// print writes the report for a person.
func (r verifyReport) print(w io.Writer) {
	if len(r.Damaged) > 0 {
		t := table.NewWriter()
		t.SetOutputMirror(w)
		t.AppendHeader(table.Row{"object", "what is wrong"})
		for _, d := range r.Damaged {
			t.AppendRow(table.Row{d.Key, d.Error})
		}
		t.Render()
	}
	fmt.Fprintf(w, "%d objects with %d bytes were read, %d cannot be trusted\n", r.Objects, r.Bytes, len(r.Damaged))
}
