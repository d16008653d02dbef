package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"coffer/cache"
	"coffer/fs"
	"coffer/objstore"
	"coffer/objstore/cse"
	"coffer/objstore/s3store"
)

// storeConfig translates settings into those of s3store. It reads the files
// with customer keys.
func storeConfig(cfg Config, probePrefix string, log *slog.Logger) (s3store.Config, error) {
	keys, ofRule, err := customerKeys(cfg)
	if err != nil {
		return s3store.Config{}, err
	}
	c := s3store.Config{
		Endpoint: cfg.EndpointURL, Region: cfg.Region, Profile: cfg.Profile,
		PathStyle: cfg.PathStyle.value, ListVersion: cfg.ListVersion.value,
		CAFile: cfg.CAFile, Anonymous: cfg.Anonymous, RequesterPays: cfg.RequesterPays, AllowHTTP: cfg.AllowHTTP,
		AllowUnencrypted: cfg.AllowUnencrypted, ReadOnly: cfg.ReadOnly, ProbePrefix: probePrefix,
		CustomerKeys: keys, KMSContext: cfg.KMSContext,
		Logger: log, UserAgent: "coffer/" + versionString(),
	}
	for i, r := range cfg.Encryption {
		enc := encryptionOf(r.SSE, r.KMSKeyID, r.BucketKey)
		if enc.Mode == objstore.ModeSSEC {
			enc.CustomerKeyMD5 = ofRule[i]
		}
		c.Rules = append(c.Rules, s3store.Rule{Pattern: r.Match, Encryption: enc, KMSContext: r.KMSContext, AllowUnencrypted: r.AllowUnencrypted})
	}
	// What no rule of the file matches follows --sse; "*" matches any bucket.
	c.Rules = append(c.Rules, s3store.Rule{Pattern: "*", Encryption: encryptionOf(cfg.SSE, cfg.KMSKeyID, cfg.BucketKey)})
	return c, nil
}

// encryptionOf returns what a value of --sse asks for. A key or a switch that
// the mode has no use for is left out.
func encryptionOf(sse choice, kmsKeyID string, bucketKey bool) objstore.Encryption {
	switch sse.value {
	case sseAES256:
		return objstore.Encryption{Mode: objstore.ModeSSES3}
	case sseKMS:
		return objstore.Encryption{Mode: objstore.ModeSSEKMS, KMSKeyID: kmsKeyID, BucketKey: bucketKey}
	case sseDSSE:
		return objstore.Encryption{Mode: objstore.ModeDSSEKMS, KMSKeyID: kmsKeyID}
	case sseCustomer:
		return objstore.Encryption{Mode: objstore.ModeSSEC}
	case sseNone:
		return objstore.Encryption{Mode: objstore.ModeNone}
	}
	return objstore.Encryption{}
}

// connection is the store of the settings, and what it is made of.
type connection struct {
	// Store encrypts and decrypts on this side where the settings ask for it.
	objstore.Store
	s3 *s3store.Store
	// clientSide tells that it does so.
	clientSide bool
}

// Close ends the connections.
func (c *connection) Close() error { return c.s3.Close() }

// openStore connects to the store of the settings. With a journalDir it notes
// the uploads under way there, with sizes what messages were found to be. The caller
// closes it.
func openStore(ctx context.Context, cfg Config, probePrefix, journalDir string, sizes cse.Sizes, log *slog.Logger) (*connection, error) {
	client, err := clientEncryption(ctx, cfg, log)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	sc, err := storeConfig(cfg, probePrefix, log)
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	sc.JournalDir = journalDir
	if client != nil {
		acceptPlainStore(&sc)
	}
	if err := sc.Validate(); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	store, err := s3store.New(ctx, sc)
	if err != nil {
		return nil, err
	}
	c := &connection{Store: store, s3: store}
	if client != nil {
		c.clientSide, client.Sizes = true, sizes
		if c.Store, err = cse.Wrap(store, *client); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	return c, nil
}

// credentialTimeout bounds the one request that a mount waits for before it
// serves: an endpoint that is away shall be told soon.
const credentialTimeout = 10 * time.Second

// checkAccess makes one cheap request that shows whether the endpoint answers
// and takes the credentials, before a job relies on the mount.
func checkAccess(ctx context.Context, store objstore.Store, src source) error {
	ctx, cancel := context.WithTimeout(ctx, credentialTimeout)
	defer cancel()
	if src.Bucket != "" {
		_, err := store.Open(ctx, src.Bucket)
		return err
	}
	_, err := store.Buckets(ctx)
	if errors.Is(err, objstore.Permission) && deniedByPolicy(err) {
		// Keys limited to single buckets may not list; names are resolved
		// one by one then.
		return nil
	}
	return err
}

// deniedByPolicy tells an authenticated caller who may not from a caller whose
// credentials are no good: both are answered with status 403.
func deniedByPolicy(err error) bool {
	var coded interface{ ErrorCode() string }
	return errors.As(err, &coded) && coded.ErrorCode() == "AccessDenied"
}

// stack is a mounted file system and the layers below it.
type stack struct {
	mnt    *fs.Mounted
	store  *connection
	closes []io.Closer
}

// mountStack builds the layers upward and mounts them.
func mountStack(ctx context.Context, plan mountPlan, env environ, log *slog.Logger) (st *stack, err error) {
	st = &stack{}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.Close())
			st = nil
		}
	}()
	cfg, prefix := plan.cfg, ""
	if plan.src.Prefix != "" {
		prefix = plan.src.Prefix + "/"
	}
	scratch := scratchDir(cfg.ScratchDir, env)
	rescueDir := ""
	if !cfg.ReadOnly {
		if rescueDir, err = makeRescueDir(scratch); err != nil {
			log.Warn("no directory for what this mount may have to leave behind", "err", err)
		}
	}
	var diskKey []byte
	if cfg.CacheKeyFile != "" {
		if diskKey, err = readKeyFile("cache key file", cfg.CacheKeyFile); err != nil {
			return st, &exitError{exitUsage, err}
		}
		defer clear(diskKey)
	}
	if cfg.CacheDir != "" {
		if err := os.MkdirAll(cfg.CacheDir, 0o700); err != nil {
			return st, &exitError{exitUsage, fmt.Errorf("cache directory: %w", err)}
		}
	}
	var sizes cse.Sizes
	if diskKey != nil && clientSide(cfg) {
		notes, err := cache.OpenNotes(cfg.CacheDir, diskKey, log)
		if err != nil {
			return st, &exitError{exitUsage, err}
		}
		st.closes = append(st.closes, notes)
		sizes = notes
	}
	store, err := openStore(ctx, cfg, prefix, rescueDir, sizes, log)
	if err != nil {
		return st, err
	}
	st.closes = append(st.closes, store)
	if err := checkAccess(ctx, store, plan.src); err != nil {
		return st, err
	}
	st.closes = append(st.closes, background(store.s3.EndDeadUploads))
	held, err := cache.New(cache.Config{
		MemoryBytes: int64(cfg.Memory), ScratchDir: scratch, StoreID: store.Identity(), Logger: log,
		DiskDir: cfg.CacheDir, DiskBytes: int64(cfg.CacheSize), DiskKey: diskKey,
	})
	if errors.Is(err, cache.ErrDisk) {
		return st, &exitError{exitUsage, err}
	}
	if err != nil {
		return st, fmt.Errorf("cache: %w", err)
	}
	st.store, st.closes = store, append(st.closes, held)
	limitHeap(held.Budget().Capacity(), env)
	rescue, err := rescueOf(cfg, rescueDir, log)
	if err != nil {
		return st, err
	}
	var rewriteMax int64
	if store.clientSide {
		rewriteMax = int64(cfg.CSERewriteMax)
	}
	st.mnt, err = fs.Mount(ctx, plan.dir, fs.Config{
		Store: store, Cache: held, Bucket: plan.src.Bucket, Prefix: prefix,
		ReadOnly: cfg.ReadOnly, AllowOther: cfg.AllowOther, AllowUnencrypted: cfg.AllowUnencrypted, ClientSide: store.clientSide, RewriteMax: rewriteMax,
		UID: cfg.UID.or(os.Getuid()), GID: cfg.GID.or(os.Getgid()),
		FileMode: uint32(0o666 &^ cfg.Umask), DirMode: uint32(0o777 &^ cfg.Umask),
		Attributes: attributesOf(cfg), Convention: fs.Convention(cfg.Convention.value),
		ExclusiveAtOpen: cfg.Exclusive.value == "open", UnlinkBatched: cfg.Unlink.value == "batched", MetadataTTL: time.Duration(cfg.MetadataTTL), AbsentTTL: cfg.AbsentTTL,
		StoreID: store.Identity(), Rescue: rescue,
		FSName: plan.src.String(), Options: plan.kernel.options(),
		Logger: log, Debug: cfg.LogLevel.value == "debug",
	})
	if err != nil {
		return st, fmt.Errorf("mount %s: %w", plan.dir, err)
	}
	if err := raiseReadAhead(plan.dir); err != nil {
		log.Debug("the kernel's read-ahead is left as it is", "error", err)
	}
	return st, nil
}

// minHeapLimit leaves room for some hundred thousand names that the kernel knows.
const minHeapLimit = 512 << 20

// limitHeap has the garbage collector work harder before the Go heap, which
// holds names and attributes, outgrows the cache, which lies outside of it, by
// far. The limit is a soft one: what is in use stays.
func limitHeap(budget int64, env environ) {
	if limit, _ := env("GOMEMLIMIT"); limit == "" {
		debug.SetMemoryLimit(max(minHeapLimit, 4*budget))
	}
}

// rescueOf returns where data is kept whose commit failed.
func rescueOf(cfg Config, dir string, log *slog.Logger) (r fs.Rescue, err error) {
	switch cfg.Rescue.value {
	case rescueOff:
		return fs.Rescue{Off: true}, nil
	case rescueMount:
		return r, nil
	}
	if dir == "" {
		return r, nil // nothing is written, or nothing can be kept there
	}
	if r.Key, err = rescueKey(cfg.RescueKeyFile); errors.Is(err, errNoKeyring) {
		log.Info("data that cannot be stored will be kept by this mount only; --rescue-key-file lets it have files of its own", "err", err)
		return r, nil
	}
	if err != nil {
		return r, &exitError{exitUsage, err}
	}
	r.Dir = dir
	return r, nil
}

// background runs f beside everything else; closing it ends f.
func background(f func(context.Context)) io.Closer {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(ctx)
	}()
	return closerFunc(func() error {
		cancel()
		<-done
		return nil
	})
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// Close releases the layers from top to bottom; the mount has ended before.
func (s *stack) Close() error {
	var errs []error
	for i := len(s.closes) - 1; i >= 0; i-- {
		errs = append(errs, s.closes[i].Close())
	}
	return errors.Join(errs...)
}

func attributesOf(cfg Config) fs.Attributes {
	switch {
	case cfg.Attributes.value == "list", cfg.Attributes.value == "auto" && cfg.ReadOnly:
		return fs.AttributesList
	}
	return fs.AttributesFull
}
