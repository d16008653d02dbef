package fs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sync/errgroup"

	"coffer/cache"
)

// Mounted is a mounted file system. Its methods are safe for concurrent use.
type Mounted struct {
	point  string
	server *fuse.Server
	fsys   *filesystem
	ended  chan struct{}
}

// maxWrite is the size in bytes of the largest FUSE request: what Linux
// allows since 4.20; older kernels cut it to 128 KiB.
const maxWrite = 1 << 20

// Mount mounts cfg at mountpoint, a directory or /dev/fd/N for a FUSE
// device that somebody else has opened and mounted, and returns when the
// kernel is served. The root of the mount is checked before: a bucket that
// does not exist is an error here, not at the first ls.
func Mount(ctx context.Context, mountpoint string, cfg Config) (*Mounted, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	fsys := newFilesystem(cfg)
	top, err := fsys.top(ctx)
	if err != nil {
		fsys.close()
		return nil, err
	}
	server, err := serve(mountpoint, top, &fsys.tmpNames, options(cfg))
	if err != nil {
		fsys.close()
		return nil, err
	}
	m := &Mounted{point: mountpoint, server: server, fsys: fsys, ended: make(chan struct{})}
	go func() {
		server.Wait()
		fsys.releaseAll(context.Background())
		fsys.close()
		close(m.ended)
	}()
	return m, nil
}

// serve mounts and returns when the kernel's first questions are answered. It
// is [gofuse.Mount], but leaves no mount behind when it fails.
func serve(mountpoint string, top gofuse.InodeEmbedder, names *tmpNames, opts *gofuse.Options) (*fuse.Server, error) {
	server, err := fuse.NewServer(withTmpfile{rereading{gofuse.NewNodeFS(top, opts)}, names}, mountpoint, &opts.MountOptions)
	if err != nil {
		return nil, err
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		if errors.Is(err, syscall.EACCES) {
			err = fmt.Errorf("user %d may not enter the mount, by its owner and permissions (--uid, --gid, --umask): %w", os.Getuid(), err)
		}
		return nil, errors.Join(err, server.Unmount())
	}
	return server, nil
}

// top returns the root inode.
func (f *filesystem) top(ctx context.Context) (gofuse.InodeEmbedder, error) {
	if f.cfg.Bucket == "" {
		return f.newRoot(), nil
	}
	b, err := f.bucket(ctx, f.cfg.Bucket)
	if err != nil {
		return nil, err
	}
	d := f.newDir(b, place{}, f.cfg.Prefix)
	d.modified = time.Now()
	return d, nil
}

func options(cfg Config) *gofuse.Options {
	o := &gofuse.Options{
		MountOptions: fuse.MountOptions{
			AllowOther: cfg.AllowOther,
			FsName:     cfg.FSName,
			Name:       "coffer",
			MaxWrite:   maxWrite,
			// Enough for four readers with full read-ahead each; the
			// kernel's default of 12 makes small requests wait for large.
			MaxBackground: 64,
			// A reply of 1 MiB does not fit the splice pipe.
			DisableSplice: true,
			// Pages are dropped when another version is met, see
			// file.learn, not whenever a time changes.
			ExplicitDataCacheControl: true,
			// A link with another target is another inode.
			EnableSymlinkCaching: true,
			Debug:                cfg.Debug,
			Logger:               slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
			// O_TRUNC belongs to the commit: a setattr before the open would
			// publish an empty object in the middle of every overwrite.
			ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC,
		},
		// Mode 0000 means 0000.
		NullPermissions: true,
		Logger:          log.New(logWriter{cfg.Logger}, "", 0),
	}
	if cfg.MetadataTTL == Indefinite {
		o.NegativeTimeout = &cfg.MetadataTTL
	}
	// The kernel checks modes and owners; we tell them.
	o.MountOptions.Options = append(o.MountOptions.Options, "default_permissions")
	if cfg.ReadOnly {
		o.MountOptions.Options = append(o.MountOptions.Options, "ro")
	}
	o.MountOptions.Options = append(o.MountOptions.Options, cfg.Options...)
	return o
}

// logWriter passes what go-fuse finds odd on to the log.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Debug("fuse", "msg", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Wait returns when the file system is unmounted, by anybody, and all its
// background work has ended.
func (m *Mounted) Wait() { <-m.ended }

// Done is closed when Wait would return.
func (m *Mounted) Done() <-chan struct{} { return m.ended }

// Flush commits every file that the store does not have in full, several at a
// time, and returns an error for each that could not be, for each that could
// not be since the last Flush with nobody left to tell, and for all data that
// only this mount holds.
func (m *Mounted) Flush(ctx context.Context) []error {
	var (
		g    errgroup.Group
		mu   sync.Mutex
		errs []error
	)
	g.SetLimit(8)
	for _, n := range m.fsys.dirtyFiles() {
		g.Go(func() error {
			parent, _ := n.parent()
			leave, err := m.fsys.gate.enter(ctx, parent)
			if err == nil {
				err = n.commitNow(ctx)
				leave()
			}
			if err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", n.path(), err))
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	m.fsys.settleAllUnlinks(ctx)
	m.fsys.mu.Lock()
	errs = append(errs, m.fsys.lost...)
	m.fsys.lost = nil
	m.fsys.mu.Unlock()
	for _, h := range m.fsys.heldFiles() {
		errs = append(errs, h.lostWith())
	}
	return errs
}

// Unmount ends the mount. While files are open it fails with EBUSY and the
// mount goes on.
func (m *Mounted) Unmount() error {
	if err := m.server.Unmount(); err != nil {
		return err
	}
	<-m.ended
	return nil
}

// Kept returns the files that this mount kept data in whose commit failed, and
// that are still there.
func (m *Mounted) Kept() []string {
	var names []string
	for _, k := range m.fsys.keptFiles() {
		names = append(names, k.name)
	}
	slices.Sort(names)
	return names
}

// Status is what a mount tells of itself.
type Status struct {
	Mountpoint  string      `json:"mountpoint"`
	OpenHandles int         `json:"open_handles"`
	DirtyFiles  []DirtyFile `json:"dirty_files"`
	// Rescued is data whose commit failed, that only this mount has.
	Rescued []Rescued   `json:"rescued"`
	Cache   cache.Stats `json:"cache"`
}

// DirtyFile is a file that the store does not have in full.
type DirtyFile struct {
	// Path is bucket and key.
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// DirtyFiles returns the files that the store does not have in full by now.
func (m *Mounted) DirtyFiles() []DirtyFile {
	files := []DirtyFile{}
	for _, n := range m.fsys.dirtyFiles() {
		if n.isGone() {
			continue // it has no name under which it could be stored
		}
		files = append(files, DirtyFile{Path: n.path(), Bytes: n.currentSize()})
	}
	return files
}

// Status returns the present state.
func (m *Mounted) Status() Status {
	s := Status{Mountpoint: m.point, DirtyFiles: m.DirtyFiles(), Rescued: m.Rescued(), Cache: m.fsys.cfg.Cache.Stats()}
	m.fsys.mu.Lock()
	s.OpenHandles = len(m.fsys.handles)
	m.fsys.mu.Unlock()
	return s
}
