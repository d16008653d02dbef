package fs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"coffer/cache"
	"coffer/objstore"
)

// keptSuffix ends the name of a file with kept data; the ID is before it.
const keptSuffix = ".kept"

// keptNote is what a file with kept data says of it; Token is that of an upload.
type keptNote struct {
	Rescued
	Token json.RawMessage `json:"token,omitempty"`
}

// RescuedFile is data that was kept as a file of its own.
type RescuedFile struct {
	Rescued
	Path string
	// Err tells why no more than ID, Time and Path is known, or why the data
	// cannot be had.
	Err error
}

// ListRescued returns what is kept in dir, oldest first as their names come;
// a directory that does not exist holds nothing. keys are tried for each.
func ListRescued(dir string, keys ...*cache.KeepKey) ([]RescuedFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []RescuedFile
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), keptSuffix) {
			continue
		}
		r := lookRescued(filepath.Join(dir, e.Name()), keys)
		if errors.Is(r.Err, os.ErrNotExist) {
			continue // somebody has done with it at this moment
		}
		all = append(all, r)
	}
	return all, nil
}

// OpenRescued returns what is known of a file with kept data. It is an error if
// it is none; one whose key is not here is no error, see [RescuedFile.Err].
func OpenRescued(name string, keys ...*cache.KeepKey) (RescuedFile, error) {
	if _, err := cache.KeptKeyID(name); err != nil {
		return RescuedFile{}, err
	}
	return lookRescued(name, keys), nil
}

func lookRescued(name string, keys []*cache.KeepKey) RescuedFile {
	r := RescuedFile{Path: name}
	kept, note, err := openRescued(name, keys)
	if err == nil {
		r.Rescued, r.Err = note.Rescued, kept.Close()
		return r
	}
	r.ID, r.Err = strings.TrimSuffix(filepath.Base(name), keptSuffix), err
	if st, err := os.Stat(name); err == nil {
		r.Time = st.ModTime().Round(time.Second)
	}
	return r
}

// openRescued opens a file with kept data under the key of keys that it is
// sealed under.
func openRescued(name string, keys []*cache.KeepKey) (*cache.Kept, keptNote, error) {
	var note keptNote
	id, err := cache.KeptKeyID(name)
	if err != nil {
		return nil, note, err
	}
	for _, k := range keys {
		if k.ID() != id {
			continue
		}
		kept, err := cache.OpenKept(name, k)
		if err != nil {
			return nil, note, err
		}
		if err := json.Unmarshal(kept.Note, &note); err != nil {
			return nil, note, errors.Join(fmt.Errorf("%s: %w", name, err), kept.Close())
		}
		return kept, note, nil
	}
	return nil, note, &objstore.Error{Op: "open kept data", Key: name, Kind: objstore.KeyUnavailable,
		Err: fmt.Errorf("it is sealed under the key %s, which is not here", id)}
}

// Salvage is what it takes to have done with files with kept data.
type Salvage struct {
	Store objstore.Store
	// StoreID is the store's identity, as in [Config].
	StoreID string
	// ClientSide tells that the store's objects are encrypted on this side.
	ClientSide bool
	Cache      *cache.Cache
	Keys       []*cache.KeepKey
}

// Commit stores the data of a file with kept data, and removes the file. The
// store has to be the one that it was meant for, unless to names a place.
func (s Salvage) Commit(ctx context.Context, name string, to Destination) (Rescued, error) {
	kept, note, err := openRescued(name, s.Keys)
	if err != nil {
		return note.Rescued, err
	}
	stage := s.Cache.StageOf(kept, nil)
	if note.Upload {
		var k objstore.Keeper
		if k, err = s.upload(ctx, note); err == nil {
			err = complete(ctx, k, note.Rescued, to)
		}
	} else {
		err = s.store(ctx, stage, note.Rescued, to)
	}
	if err := errors.Join(err, stage.Close()); err != nil {
		return note.Rescued, err
	}
	return note.Rescued, os.Remove(name)
}

// store makes an object of the bytes of stage.
func (s Salvage) store(ctx context.Context, stage *cache.Stage, r Rescued, to Destination) error {
	if r.ClientSide && !s.ClientSide {
		return &objstore.Error{Op: "rescue", Key: r.where(), Kind: objstore.Unencrypted, Err: errors.New("it was to be encrypted on this side: --cse-keyring")}
	}
	if to.Bucket == "" || r.NeedsBase {
		if err := s.mustOwn(r); err != nil {
			return err
		}
	}
	b, err := s.Store.Open(ctx, cmp.Or(to.Bucket, r.Bucket))
	if err != nil {
		return err
	}
	var under *cache.Reader
	if r.NeedsBase {
		from, err := s.Store.Open(ctx, r.Bucket)
		if err != nil {
			return err
		}
		o, err := from.Head(ctx, r.Base)
		if isLost(err) {
			return r.baseLost(err)
		}
		if err != nil {
			return err
		}
		under = s.Cache.OpenReader(from, r.Base, o)
		defer under.Close()
		stage.Rebase(under)
	}
	return storeRescued(ctx, b, r, stage, under, to)
}

// upload returns the upload that a file with kept data tells of.
func (s Salvage) upload(ctx context.Context, note keptNote) (objstore.Keeper, error) {
	if err := s.mustOwn(note.Rescued); err != nil {
		return nil, err
	}
	b, err := s.Store.Open(ctx, note.Bucket)
	if err != nil {
		return nil, err
	}
	again, ok := b.(objstore.Resumer)
	if !ok {
		return nil, objstore.Unsupported
	}
	return again.Resume(ctx, note.Token)
}

func (s Salvage) mustOwn(r Rescued) error {
	if r.Store != s.StoreID {
		return fmt.Errorf("it belongs to the store %s, and this is %s (--endpoint-url, --region, --cse-keyring)", r.Store, s.StoreID)
	}
	return nil
}

// DiscardUpload removes a file with kept data whose bytes wait in the store, and
// frees them there.
func (s Salvage) DiscardUpload(ctx context.Context, name string) error {
	kept, note, err := openRescued(name, s.Keys)
	if err != nil {
		return err
	}
	k, err := s.upload(ctx, note)
	if err == nil {
		err = k.Abort()
	}
	if err := errors.Join(err, kept.Close()); err != nil {
		return err
	}
	return os.Remove(name)
}
