package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

// Data whose commit failed is kept. The program was told that it is not stored,
// and what is done with it is decided by the user, later:
//
//	buffered, staged   the scratch file gets a name and, sealed under the
//	                   user's key, what is needed to open it again: it outlives
//	                   the mount. Without a key the mount holds it.
//	streaming          all of it is in the store, as parts of an upload that
//	                   could not be completed: such a file says which.
//
// Nothing is kept that could not be had back: a stream of which a part was not
// taken, or changes of a version that is gone.

// Rescue says where data is kept whose commit failed.
type Rescue struct {
	// Off drops it.
	Off bool
	// Dir is a directory of this user alone, on the file system of the scratch
	// directory. Without Dir or Key the mount holds what it keeps.
	Dir string
	Key *cache.KeepKey
}

// Rescued describes data that was kept when its commit failed.
type Rescued struct {
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	// Store is the identity of the store that it was meant for.
	Store  string `json:"store"`
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Size   int64  `json:"size"`
	// Cause is why the commit failed.
	Cause string `json:"cause"`
	// Base is the version that it was to replace, without an ETag for none.
	Base objstore.Ref `json:"base"`
	// NeedsBase tells that some of the bytes are still those of Base.
	NeedsBase bool `json:"needs_base,omitempty"`
	// Upload tells that the bytes wait in the store, in an upload under Key.
	Upload bool `json:"upload,omitempty"`
	// ClientSide tells that it was to be encrypted on this side.
	ClientSide bool `json:"client_side,omitempty"`
	// Held tells that it ends with the mount that keeps it.
	Held bool `json:"held,omitempty"`

	Meta         map[string]string `json:"meta,omitempty"`
	Headers      objstore.Headers  `json:"headers"`
	StorageClass string            `json:"storage_class,omitempty"`
}

// where names the file that the data was meant for.
func (r Rescued) where() string { return r.Bucket + "/" + r.Key }

// held is what a mount keeps itself: out, an upload, or else stage, which may
// lie over under.
type held struct {
	Rescued
	bucket objstore.Bucket
	stage  *cache.Stage
	under  *cache.Reader
	out    objstore.Keeper
}

// mostRescued is how many files a mount keeps: enough for what a job has open,
// and not a copy of a tree into a bucket that takes nothing.
const mostRescued = 1000

// rescue keeps what cause has kept from the store, and tells where; the caller
// has the turn. An error says why nothing is kept.
func (n *file) rescue(ctx context.Context, cause error) (string, error) {
	f := n.fsys
	switch {
	case f.cfg.Rescue.Off:
		return "", errors.New("--rescue off")
	case n.currentSize() == 0:
		return "", errors.New("it is empty")
	}
	c := &n.content
	streamed := c.head == nil && c.stage == nil // an upload has all of it, and nothing else
	if err := f.roomToKeep(path(n.bucket, n.key()), !streamed); err != nil {
		return "", err
	}
	h := &held{bucket: n.bucket}
	if streamed {
		k, ok := c.out.(objstore.Keeper)
		if !ok || !k.Kept() {
			return "", errors.New("it went out as a stream, of which not all was taken")
		}
		var err error
		if h.stage, err = f.cfg.Cache.NewStage(nil, 0); err != nil {
			return "", err
		}
		h.out, c.out = k, nil
	} else {
		if c.stage == nil {
			if err := n.spill(); err != nil {
				return "", err
			}
		}
		h.stage, h.under, c.stage, c.under = c.stage, c.under, nil, nil
	}
	h.Rescued = n.describe(cause)
	h.Upload, h.NeedsBase = h.out != nil, h.stage.NeedsBase()
	if h.NeedsBase && isLost(cause) {
		if _, err := n.bucket.Head(context.WithoutCancel(ctx), h.Base); isLost(err) {
			return "", errors.Join(errors.New("it is changes of a version that is gone"), h.free())
		}
	}
	name, err := f.keep(h)
	if err == nil {
		return name, nil
	}
	if err != errNoFile {
		f.log.Warn("kept data gets no file of its own", "path", n.path(), "err", err)
	}
	return f.hold(h), nil
}

// errNoFile tells that data is kept by mounts only.
var errNoFile = errors.New("no directory or no key for it")

// keep gives h a file of its own, in place of what was kept of the same file
// before: the last to be closed is what a local file system would have. It
// returns the file's name, and has ended h.
func (f *filesystem) keep(h *held) (string, error) {
	if f.cfg.Rescue.Dir == "" || f.cfg.Rescue.Key == nil {
		return "", errNoFile
	}
	note := keptNote{Rescued: h.Rescued}
	var err error
	if h.out != nil {
		if note.Token, err = h.out.Token(); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(note)
	if err != nil {
		return "", err
	}
	name := filepath.Join(f.cfg.Rescue.Dir, h.ID+keptSuffix)
	if err := h.stage.Keep(name, f.cfg.Rescue.Key, text); err != nil {
		return "", err
	}
	if h.out != nil {
		h.out.Entrust()
		h.out = nil
	}
	f.logFreed(h)
	f.mu.Lock()
	old := f.kept[h.where()]
	f.kept[h.where()] = keptFile{name, h.bucket, note.Token}
	f.mu.Unlock()
	if old.name != "" {
		f.supersede(old)
	}
	return name, nil
}

// keptFile is a file that this mount keeps data in.
type keptFile struct {
	name   string
	bucket objstore.Bucket
	token  []byte // of its upload, if there is one
}

// keptFiles returns the files that there are still, by what they are for, and
// forgets the others.
func (f *filesystem) keptFiles() map[string]keptFile {
	f.mu.Lock()
	kept := maps.Clone(f.kept)
	f.mu.Unlock()
	for where, k := range kept {
		if _, err := os.Stat(k.name); err == nil {
			continue
		}
		delete(kept, where)
		f.mu.Lock()
		if f.kept[where].name == k.name {
			delete(f.kept, where)
		}
		f.mu.Unlock()
	}
	return kept
}

// supersede has done with data that newer data was kept in place of, unless
// somebody had done with it before.
func (f *filesystem) supersede(old keptFile) {
	err := os.Remove(old.name)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if again, ok := old.bucket.(objstore.Resumer); err == nil && ok && old.token != nil {
		var k objstore.Keeper
		if k, err = again.Resume(context.Background(), old.token); err == nil {
			err = k.Abort()
		}
	}
	if err != nil {
		f.log.Warn("kept data that is superseded stays", "file", old.name, "err", err)
	}
}

// isLost reports whether err tells that a version is not there any more.
func isLost(err error) bool {
	return errors.Is(err, objstore.Stale) || errors.Is(err, objstore.NotExist)
}

// describe returns what there is to know of the file; the caller has the turn.
func (n *file) describe(cause error) Rescued {
	opts := n.createOptions(0)
	r := Rescued{
		ID: randomName(6), Time: time.Now().Round(0), Store: n.fsys.cfg.StoreID, Bucket: n.bucket.Name(), Key: n.key(),
		Size: n.currentSize(), Cause: cause.Error(), ClientSide: n.fsys.cfg.ClientSide, Meta: opts.Meta, Headers: opts.Headers, StorageClass: opts.StorageClass,
	}
	if base := n.content.base; base != nil {
		r.Base = base.Ref(r.Bucket)
		r.Base.Key = r.Key
	}
	return r
}

// roomToKeep refuses what would leave the job without scratch, or makes a copy
// of everything that a store refuses. What takes the place of something, or of
// no space, is welcome.
func (f *filesystem) roomToKeep(where string, space bool) error {
	f.mu.Lock()
	_, replaces := f.kept[where]
	n := len(f.held) + len(f.kept)
	f.mu.Unlock()
	if n >= mostRescued && !replaces {
		if n = len(f.heldFiles()) + len(f.keptFiles()); n >= mostRescued {
			return fmt.Errorf("%d files are kept already", n)
		}
	}
	if f.cfg.Rescue.Dir == "" || !space {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.cfg.Rescue.Dir, &st); err != nil {
		return err
	}
	if st.Bavail < st.Blocks/20 {
		return fmt.Errorf("less than 5 %% of the space of %s is free", f.cfg.Rescue.Dir)
	}
	return nil
}

// hold keeps h in this mount, in place of what it holds for the same file: the
// last to be closed is what a local file system would have. It tells where.
func (f *filesystem) hold(h *held) string {
	h.Held = true
	f.mu.Lock()
	var old *held
	if i := slices.IndexFunc(f.held, func(o *held) bool { return o.where() == h.where() }); i >= 0 {
		old = f.held[i]
		f.held = slices.Delete(f.held, i, i+1)
	}
	f.held = append(f.held, h)
	f.mu.Unlock()
	if old != nil {
		f.logFreed(old)
	}
	return "this mount, as " + h.ID
}

// free drops what is held.
func (h *held) free() error {
	var errs []error
	if h.out != nil {
		errs = append(errs, h.out.Abort())
	}
	if h.stage != nil {
		errs = append(errs, h.stage.Close())
	}
	if h.under != nil {
		errs = append(errs, h.under.Close())
	}
	return errors.Join(errs...)
}

func (f *filesystem) logFreed(h *held) {
	if err := h.free(); err != nil {
		f.log.Warn("kept data not freed", "path", h.where(), "err", err)
	}
}

// lostWith is the error for data that is only in this mount.
func (h *held) lostWith() error {
	return fmt.Errorf("%s: only this mount has it (coffer rescue commit %s, or discard): %s", h.where(), h.ID, h.Cause)
}

// heldFiles returns what the mount holds.
func (f *filesystem) heldFiles() []*held {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.held)
}

// dropHeld ends what the mount holds: the mount ends.
func (f *filesystem) dropHeld() {
	f.mu.Lock()
	all := f.held
	f.held = nil
	f.mu.Unlock()
	for _, h := range all {
		f.addLost(fmt.Errorf("%s: lost with the mount, which alone had it: %s", h.where(), h.Cause))
		f.logFreed(h)
	}
}

// takeHeld returns what is held under id, for the caller to put back or to free.
func (f *filesystem) takeHeld(id string) (*held, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.held, func(h *held) bool { return h.ID == id })
	if i < 0 {
		return nil, errNothingKept
	}
	h := f.held[i]
	f.held = slices.Delete(f.held, i, i+1)
	return h, nil
}

var errNothingKept = errors.New("nothing is kept under this name")

// Rescued returns what the mount holds that nobody else has.
func (m *Mounted) Rescued() []Rescued {
	all := []Rescued{}
	for _, h := range m.fsys.heldFiles() {
		all = append(all, h.Rescued)
	}
	return all
}

// CommitRescued stores what the mount holds under id; after an error it holds
// it still.
func (m *Mounted) CommitRescued(ctx context.Context, id string, to Destination) error {
	f := m.fsys
	h, err := f.takeHeld(id)
	if err != nil {
		return err
	}
	b := h.bucket
	if to.Bucket != "" {
		b, err = f.bucket(ctx, to.Bucket)
	}
	if err == nil {
		if h.out != nil {
			err = complete(ctx, h.out, h.Rescued, to)
		} else {
			err = storeRescued(ctx, b, h.Rescued, h.stage, h.under, to)
		}
	}
	if err != nil {
		f.mu.Lock()
		f.held = append(f.held, h)
		f.mu.Unlock()
		return err
	}
	h.out = nil // it has ended
	f.logFreed(h)
	return nil
}

// complete ends an upload that waits in the store.
func complete(ctx context.Context, k objstore.Keeper, r Rescued, to Destination) error {
	if to.Bucket != "" && (to.Bucket != r.Bucket || to.Key != r.Key) {
		return fmt.Errorf("its bytes wait in an upload for s3://%s/%s, and cannot go elsewhere (--force replaces what is there)", r.Bucket, r.Key)
	}
	_, err := k.Recommit(ctx, to.condition(r))
	if err != nil && !k.Kept() {
		return fmt.Errorf("the upload is gone, and its bytes with it: %w", err)
	}
	return err
}

// DiscardRescued drops what the mount holds under id.
func (m *Mounted) DiscardRescued(id string) error {
	h, err := m.fsys.takeHeld(id)
	if err != nil {
		return err
	}
	m.fsys.log.Info("kept data discarded", "path", h.where(), "bytes", h.Size)
	return h.free()
}

// Destination is where kept data is to be stored; the zero value is the place
// that it was meant for.
type Destination struct {
	Bucket, Key string
	// Force replaces whatever is there.
	Force bool
}

func (to Destination) key(r Rescued) string {
	if to.Bucket == "" {
		return r.Key
	}
	return to.Key
}

// condition is what must hold of the destination.
func (to Destination) condition(r Rescued) objstore.Condition {
	switch {
	case to.Force:
		return objstore.Condition{}
	case to.Bucket != "" || r.Base.ETag == "":
		return objstore.Condition{IfAbsent: true}
	}
	return objstore.Condition{IfMatch: r.Base.ETag}
}

// storeRescued makes an object of kept data.
func storeRescued(ctx context.Context, b objstore.Bucket, r Rescued, stage *cache.Stage, under *cache.Reader, to Destination) error {
	c := content{stage: stage, under: under}
	_, err := c.send(ctx, b, to.key(r), objstore.CreateOptions{
		Meta: r.Meta, Headers: r.Headers, StorageClass: r.StorageClass, Cond: to.condition(r), SizeHint: r.Size,
	})
	if err == nil {
		_, err = c.out.Commit(ctx)
	}
	if err != nil && c.out != nil {
		err = errors.Join(err, c.out.Abort())
	}
	if isLost(err) && r.NeedsBase {
		return r.baseLost(err)
	}
	return err
}

// baseLost explains that a part of the bytes is not there any more.
func (r Rescued) baseLost(err error) error {
	return fmt.Errorf("the version of %s that it changes, with the ETag %s, is gone, and most of the file with it: %w", r.where(), r.Base.ETag, err)
}
