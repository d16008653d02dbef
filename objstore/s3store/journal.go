package s3store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"coffer/objstore"
)

// journal notes on this machine which uploads a process has begun and not ended:
// their parts are billed, and nobody sees them. A later process ends those of
// one that was killed. No list of the store could tell them from uploads that
// somebody else has under way.
//
// A journal is a file of JSON lines, locked by its process as long as that
// lives. Its name has that of the machine, for a directory may be shared whose
// locks are not. The methods of a nil *journal do nothing.
type journal struct {
	log *slog.Logger

	mu   sync.Mutex
	f    *os.File
	open map[string]struct{} // IDs
}

// journalLine tells of one upload that it has begun, or ended.
type journalLine struct {
	Store  string `json:"store,omitempty"`
	Bucket string `json:"bucket,omitempty"`
	Key    string `json:"key,omitempty"`
	ID     string `json:"id"`
	Ended  bool   `json:"ended,omitempty"`
}

// journalPattern is what journals of this machine are called.
func journalPattern() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(host)) // any name is one of a file
	return "uploads-" + hex.EncodeToString(sum[:6]) + "-*.journal", nil
}

// newJournal makes a journal in dir.
func newJournal(dir string, log *slog.Logger) (*journal, error) {
	pattern, err := journalPattern()
	if err != nil {
		return nil, err
	}
	for range 100 {
		f, err := os.CreateTemp(dir, pattern) // 0600
		if err != nil {
			return nil, err
		}
		if err := lockFile(f); err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err == nil && st.Nlink > 0 && lockFile(f) == nil {
			return &journal{log: log, f: f, open: map[string]struct{}{}}, nil
		}
		_ = f.Close() // a sweep has taken it for a dead one's before it was locked
	}
	return nil, errors.New("no journal could be locked")
}

func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// begun notes an upload.
func (j *journal) begun(store, bucket, key, id string) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open[id] = struct{}{}
	j.writeLocked(journalLine{Store: store, Bucket: bucket, Key: key, ID: id})
}

// ended notes that an upload was completed or aborted, or is somebody else's.
func (j *journal) ended(id string) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.open[id]; !ok {
		return
	}
	delete(j.open, id)
	if len(j.open) > 0 {
		j.writeLocked(journalLine{ID: id, Ended: true})
		return
	}
	if err := j.f.Truncate(0); err != nil {
		j.log.Warn("the journal of uploads", "err", err)
	}
}

func (j *journal) writeLocked(l journalLine) {
	text, err := json.Marshal(l)
	if err == nil {
		// Where it ends: truncation does not move the offset of a file.
		_, err = j.f.Seek(0, 2)
	}
	if err == nil {
		_, err = j.f.Write(append(text, '\n'))
	}
	if err != nil {
		j.log.Warn("an upload is not in the journal: if this process is killed, its parts stay", "bucket", l.Bucket, "key", l.Key, "err", err)
	}
}

// sync brings the journal to the disk.
func (j *journal) sync() {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.f.Sync(); err != nil {
		j.log.Warn("the journal of uploads", "err", err)
	}
}

// close ends the journal. What has not ended stays noted.
func (j *journal) close() error {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	var err error
	if len(j.open) == 0 {
		err = os.Remove(j.f.Name())
	}
	return errors.Join(err, j.f.Close())
}

// sweepJournals calls abort for each upload to store that a process has begun
// which lives no more. Journals that are done with are removed.
func sweepJournals(ctx context.Context, dir, store string, log *slog.Logger, abort func(ctx context.Context, bucket, key, id string) error) {
	pattern, err := journalPattern()
	if err != nil {
		return
	}
	names, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is good
	for _, name := range names {
		if err := sweepJournal(ctx, name, store, abort); err != nil {
			log.Warn("uploads that a killed process has left may still be there", "journal", name, "err", err)
		}
	}
}

// EndDeadUploads aborts the uploads to this store that processes on this machine
// have begun which live no more.
func (s *Store) EndDeadUploads(ctx context.Context) {
	if s.journal == nil {
		return
	}
	sweepJournals(ctx, s.cfg.JournalDir, s.Identity(), s.log, func(ctx context.Context, bucket, key, id string) error {
		err := s.AbortUpload(ctx, objstore.Upload{Bucket: bucket, Key: key, ID: id})
		if errors.Is(err, objstore.NotExist) {
			return nil // with its bucket
		}
		if err == nil {
			s.log.Info("an upload that a killed process has left is ended", "bucket", bucket, "key", key)
		}
		return err
	})
}

func sweepJournal(ctx context.Context, name, store string, abort func(ctx context.Context, bucket, key, id string) error) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if lockFile(f) != nil {
		return nil // it lives
	}
	open := map[string]journalLine{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l journalLine
		if json.Unmarshal(lines.Bytes(), &l) != nil {
			continue // cut off by the end of its process
		}
		if l.Ended {
			delete(open, l.ID)
		} else {
			open[l.ID] = l
		}
	}
	var errs []error
	others := false
	for _, l := range open {
		if l.Store != store {
			others = true // for a mount of that store
			continue
		}
		errs = append(errs, abort(ctx, l.Bucket, l.Key, l.ID))
	}
	if err := errors.Join(errs...); err != nil || others {
		return err
	}
	return os.Remove(name)
}
