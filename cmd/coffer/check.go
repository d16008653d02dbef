package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"coffer/objstore"
	"coffer/objstore/s3store"
)

const checkLong = `Try out what a mount needs: credentials, endpoint and region, what the endpoint
honours and whether it encrypts, the FUSE device and its helper. With a bucket,
scratch objects named .coffer-probe-... are written below the prefix, in each
mode of encryption (SSE-C with a key of its own when none is given), looked at
and removed; an object lock keeps their versions. With --read-only the bucket's
word is taken, and proves nothing.

With --uploads it lists multipart uploads that were begun and never ended, in
the bucket or in all of them: a client that was killed leaves its parts behind,
which nobody sees and which are billed. --abort-stale removes those that are
older than --older-than; uploads of a mount that is at work are younger, unless
one file takes longer than that to write.

The exit code tells the worst finding: 5 when the bucket does not encrypt or
that could not be proved, 4 and 3 as below, 1 when this machine cannot mount.`

const checkExample = `  coffer check
  coffer check s3://dataset --json | jq .store.encryption
  coffer check s3://dataset --uploads --abort-stale --older-than 48h`

// checkReport is the output of "coffer check --json".
type checkReport struct {
	Store   *storeReport    `json:"store,omitempty"`
	Machine []s3store.Check `json:"machine"`
	Uploads []uploadReport  `json:"uploads,omitempty"`
	Errors  []string        `json:"errors,omitempty"`
}

// storeReport is what was found of the endpoint and the bucket. Encryption is
// the word that user.s3.encryption shows for new objects, "" when it is not
// known.
type storeReport struct {
	Endpoint   string `json:"endpoint"`
	Region     string `json:"region"`
	Bucket     string `json:"bucket,omitempty"`
	Encryption string `json:"encryption,omitempty"`
	SSE        string `json:"sse,omitempty"`
	KMSKeyID   string `json:"kms_key_id,omitempty"`
	// CustomerKeyMD5 names the key of SSE-C.
	CustomerKeyMD5 string          `json:"customer_key_md5,omitempty"`
	BucketKey      bool            `json:"bucket_key,omitempty"`
	Checks         []s3store.Check `json:"checks"`
}

func newStoreReport(r s3store.Report) *storeReport {
	return &storeReport{
		Endpoint: r.Endpoint, Region: r.Region, Bucket: r.Bucket, Checks: r.Checks,
		Encryption: r.Encryption.Word(), SSE: r.Encryption.SSEHeader(), KMSKeyID: r.Encryption.KMSKeyID,
		CustomerKeyMD5: r.Encryption.CustomerKeyMD5, BucketKey: r.Encryption.BucketKey,
	}
}

// uploadReport is one unfinished upload.
type uploadReport struct {
	Bucket    string    `json:"bucket"`
	Key       string    `json:"key"`
	ID        string    `json:"id"`
	Initiated time.Time `json:"initiated"`
	Aborted   bool      `json:"aborted"`
}

// checkPlan is what to look at.
type checkPlan struct {
	src        source
	uploads    bool
	abortStale bool
	olderThan  time.Duration
}

// newCheck builds "coffer check".
func newCheck(a *app) *cobra.Command {
	scratch := defaultConfig()
	var plan checkPlan
	var asJSON, readOnly bool
	cmd := &cobra.Command{
		Use:     "check [flags] [s3://BUCKET[/PREFIX]]",
		Short:   "Try credentials, endpoint, encryption and FUSE",
		Long:    checkLong + "\n\n" + exitCodeHelp,
		Example: checkExample,
		Args:    argCount(0, 1, "[s3://BUCKET[/PREFIX]]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if plan.abortStale && !plan.uploads {
				return usageErrorf("--abort-stale goes with --uploads")
			}
			if plan.olderThan < 0 {
				return usageErrorf("--older-than %v is negative", plan.olderThan)
			}
			if len(args) > 0 {
				var err error
				if plan.src, err = parseSource(args[0]); err != nil {
					return &exitError{exitUsage, err}
				}
			}
			cfg, err := resolveConfig(cmd.Flags(), a.env, nil)
			if err != nil {
				return err
			}
			report := checkReport{Machine: checkMachine("/", scratchDir(cfg.ScratchDir, a.env))}
			err = a.withStore(cfg, func(ctx context.Context, store *connection) error {
				return checkStore(ctx, store, cfg, plan, &report)
			})
			if errors.As(err, new(*exitError)) && report.Store == nil {
				return err
			}
			if err == nil && !canMount(report.Machine) {
				err = errors.New("this machine cannot mount")
			}
			if err != nil {
				report.Errors = append(report.Errors, err.Error())
			}
			if asJSON {
				enc := json.NewEncoder(a.stdout)
				enc.SetIndent("", "  ")
				return errors.Join(err, enc.Encode(report))
			}
			report.print(a.stdout)
			return err
		},
	}
	bindFlags(cmd.Flags(), &scratch, storeGroups...)
	cmd.Flags().BoolVar(&readOnly, "read-only", false, "write no scratch objects")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&plan.uploads, "uploads", false, "list multipart uploads that were never ended")
	cmd.Flags().BoolVar(&plan.abortStale, "abort-stale", false, "with --uploads: remove those older than --older-than")
	cmd.Flags().DurationVar(&plan.olderThan, "older-than", 24*time.Hour, "`age` at which an upload counts as stale")
	return cmd
}

// checkStore fills in what concerns the store. The error is the worst finding.
func checkStore(ctx context.Context, store *connection, cfg Config, plan checkPlan, report *checkReport) error {
	access := checkAccess(ctx, store, plan.src)
	if exitCode(access) == exitUnavailable {
		// Each further question would wait as long.
		return access
	}
	found, err := store.s3.Inspect(ctx, plan.src.Bucket)
	if err != nil {
		return err
	}
	report.Store = newStoreReport(found)
	if store.clientSide && plan.src.Bucket != "" && access == nil {
		b, err := store.Open(ctx, plan.src.Bucket)
		if err != nil {
			return err
		}
		enc, err := b.Protection(ctx, plan.src.Prefix)
		if err != nil {
			return err
		}
		report.Store.Encryption = enc.Word()
	}
	if access != nil {
		return access
	}
	if plan.uploads {
		if err := checkUploads(ctx, store.s3, plan, time.Now(), report); err != nil {
			return err
		}
	}
	if plan.src.Bucket != "" && !found.Encryption.Encrypted() && !store.clientSide && !cfg.AllowUnencrypted {
		return fmt.Errorf("s3://%s: %w", plan.src.Bucket, objstore.Unencrypted)
	}
	return nil
}

// uploadLister is what is needed of a store to look for unfinished uploads.
type uploadLister interface {
	objstore.Store
	objstore.Uploads
}

// checkUploads lists the unfinished uploads of one bucket or of all, and ends
// those that are stale at the time now.
func checkUploads(ctx context.Context, store uploadLister, plan checkPlan, now time.Time, report *checkReport) error {
	buckets := []string{plan.src.Bucket}
	if plan.src.Bucket == "" {
		infos, err := store.Buckets(ctx)
		if err != nil {
			return err
		}
		buckets = buckets[:0]
		for _, b := range infos {
			buckets = append(buckets, b.Name)
		}
	}
	prefix := ""
	if plan.src.Prefix != "" {
		prefix = plan.src.Prefix + "/"
	}
	var errs []error
	for _, bucket := range buckets {
		for u, err := range store.ListUploads(ctx, bucket, prefix) {
			if err != nil {
				errs = append(errs, err)
				break
			}
			r := uploadReport{Bucket: bucket, Key: u.Key, ID: u.ID, Initiated: u.Initiated}
			if plan.abortStale && now.Sub(u.Initiated) > plan.olderThan {
				if err := store.AbortUpload(ctx, u); err != nil {
					errs = append(errs, err)
				} else {
					r.Aborted = true
				}
			}
			report.Uploads = append(report.Uploads, r)
		}
	}
	return errors.Join(errs...)
}

// leastKernel is the oldest kernel whose FUSE is known to serve: that of
// RHEL 8, which many compute nodes run.
var leastKernel = [2]int{4, 18}

// checkMachine looks at what a mount needs of this machine. root is "/"
// except in tests.
func checkMachine(root, scratch string) []s3store.Check {
	var checks []s3store.Check
	add := func(name string, result s3store.Result, detail string) {
		checks = append(checks, s3store.Check{Name: name, Result: result, Detail: detail})
	}
	if f, err := os.OpenFile(root+"dev/fuse", os.O_RDWR, 0); err == nil {
		_ = f.Close()
		add(checkDevice, s3store.ResultYes, "")
	} else {
		add(checkDevice, s3store.ResultNo, err.Error())
	}
	helper, err := fusermountPath()
	switch {
	case err != nil:
		add(checkHelper, s3store.ResultNo, err.Error())
	default:
		st, err := os.Stat(helper)
		if os.Geteuid() != 0 && err == nil && st.Mode()&os.ModeSetuid == 0 {
			add(checkHelper, s3store.ResultNo, helper+" is not set-user-id root: only root can mount")
		} else {
			add(checkHelper, s3store.ResultYes, helper)
		}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		add(checkKernel, s3store.ResultUnknown, err.Error())
	} else {
		release := unix.ByteSliceToString(uts.Release[:])
		add(checkKernel, kernelServes(release), release)
	}
	result, detail := s3store.ResultNo, "only the mounting user, and root for all, can be let in"
	if conf, err := os.ReadFile(root + "etc/fuse.conf"); err == nil && hasLine(string(conf), "user_allow_other") {
		result, detail = s3store.ResultYes, ""
	} else if os.Geteuid() == 0 {
		result, detail = s3store.ResultYes, "as root"
	}
	add("--allow-other is permitted", result, detail)
	if err := unix.Access(scratch, unix.W_OK|unix.X_OK); err != nil {
		add(checkScratch, s3store.ResultNo, scratch+": "+err.Error())
	} else {
		add(checkScratch, s3store.ResultYes, scratch)
	}
	return checks
}

// Names of the findings without which nothing can be mounted.
const (
	checkDevice  = "/dev/fuse can be opened"
	checkHelper  = "fusermount3 is installed"
	checkKernel  = "kernel is 4.18 or newer"
	checkScratch = "scratch directory is writable"
)

// canMount reports whether none of the necessary findings is a no. root needs
// no helper, but go-fuse falls back to it, so it counts.
func canMount(checks []s3store.Check) bool {
	for _, c := range checks {
		switch c.Name {
		case checkDevice, checkHelper, checkKernel, checkScratch:
			if c.Result == s3store.ResultNo {
				return false
			}
		}
	}
	return true
}

// kernelServes compares a release such as "5.14.0-427.el9" with leastKernel.
func kernelServes(release string) s3store.Result {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || n != 2 {
		return s3store.ResultUnknown
	}
	if major < leastKernel[0] || (major == leastKernel[0] && minor < leastKernel[1]) {
		return s3store.ResultNo
	}
	return s3store.ResultYes
}

func hasLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == want {
			return true
		}
	}
	return false
}

// detailWidth is where the last column of a table wraps.
const detailWidth = 70

// print writes the report as tables.
func (r checkReport) print(w io.Writer) {
	if s := r.Store; s != nil {
		fmt.Fprintf(w, "endpoint   %s\nregion     %s\n", s.Endpoint, s.Region)
		if s.Bucket != "" {
			fmt.Fprintf(w, "bucket     s3://%s\nencryption %s\n", s.Bucket, cmp.Or(s.Encryption, "not proved"))
		}
		printChecks(w, s.Checks)
	}
	printChecks(w, r.Machine)
	if len(r.Uploads) == 0 {
		return
	}
	t := newTable(w, "unfinished upload", "begun", "removed")
	for _, u := range r.Uploads {
		t.AppendRow(table.Row{"s3://" + u.Bucket + "/" + u.Key, u.Initiated.Local().Format(time.DateTime), yesNo(u.Aborted)})
	}
	t.Render()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func printChecks(w io.Writer, checks []s3store.Check) {
	if len(checks) == 0 {
		return
	}
	t := newTable(w, "check", "result", "detail")
	for _, c := range checks {
		t.AppendRow(table.Row{c.Name, c.Result, c.Detail})
	}
	t.Render()
}

func newTable(w io.Writer, header ...any) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	t.SetColumnConfigs([]table.ColumnConfig{{Number: len(header), WidthMax: detailWidth, WidthMaxEnforcer: text.WrapSoft}})
	t.AppendHeader(header)
	return t
}
