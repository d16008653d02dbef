package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// notesMost is how many notes are remembered at most, at some 30 bytes each.
	notesMost = 1 << 20
	// notesFacts is how many different facts they are: most objects of a data set
	// have the same.
	notesFacts = 1 << 16
	// notesFileBytes bounds the file of one process. When there are more than
	// notesFiles whose process has ended, or more than notesBytes, they become one.
	notesFileBytes = 32 << 20
	notesFiles     = 8
	notesBytes     = 64 << 20
	// notesDelay is for how long notes are gathered before they are written.
	notesDelay = time.Second
)

// Notes are facts of a few bytes that outlive the mount, for others with the same key:
// what takes requests to find out of an object version and never changes. All of them
// are in memory. Like the disk tier, in whose directory they are, it is a cache only:
// the oldest go, and whatever goes wrong is a miss. Safe for concurrent use.
type Notes struct {
	key  *diskKey
	dir  *diskDir
	log  *slog.Logger
	wake chan struct{} // pending is not empty
	quit chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	book    notebook // guarded by mu
	pending []byte   // guarded by mu: notes that are to be written
}

// OpenNotes reads the notes that others left under the key of 32 bytes, in the directory
// of [Config].DiskDir. [ErrDisk] is part of every error. The caller closes them.
func OpenNotes(dir string, key []byte, log *slog.Logger) (*Notes, error) {
	k, err := newDiskKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	d, _, err := openDiskDir(dir, k.id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	n := &Notes{key: k, dir: d, log: log, wake: make(chan struct{}, 1), quit: make(chan struct{}), book: newNotebook(notesMost)}
	if err := n.load(); err != nil {
		d.close()
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	n.wg.Go(n.writer)
	return n, nil
}

// Close writes what is pending.
func (n *Notes) Close() error {
	close(n.quit)
	n.wg.Wait()
	n.dir.close()
	return nil
}

// Get returns what was put under a name last.
func (n *Notes) Get(name []byte) (fact []byte, ok bool) {
	h := n.nameOf(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	text, ok := n.book.get(h)
	return []byte(text), ok
}

// Put keeps a fact of at most 255 bytes.
func (n *Notes) Put(name, fact []byte) {
	h := n.nameOf(name)
	n.mu.Lock()
	news := n.book.put(h, fact)
	if news && len(n.pending) < notesFrameBytes-512 { // else the disk is too slow for it
		n.pending = appendNote(n.pending, h, fact)
	}
	n.mu.Unlock()
	if news {
		select {
		case n.wake <- struct{}{}:
		default:
		}
	}
}

func (n *Notes) nameOf(name []byte) noteName {
	h := hmac.New(sha256.New, n.key.note)
	h.Write(name)
	return noteName(h.Sum(nil))
}

// load reads all files, the oldest first, and makes one of them where there are many of
// processes that have ended. Others that begin wait.
func (n *Notes) load() error {
	lock, err := lockIn(n.dir.root, true)
	if err != nil {
		return err
	}
	defer lock.Close()
	var files []os.FileInfo
	for _, name := range namesIn(n.dir.root, ".") {
		if st, err := n.dir.root.Lstat(name); err == nil && strings.HasPrefix(name, notesPrefix) && st.Mode().IsRegular() {
			files = append(files, st)
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	var ended []string
	size := int64(0)
	for _, st := range files {
		if n.read(st.Name()) {
			ended = append(ended, st.Name())
			size += st.Size()
		}
	}
	if len(ended) > notesFiles || size > notesBytes {
		if err := n.merge(ended); err != nil {
			n.log.Debug("files of notes are left as they are", "err", err)
		}
	}
	return nil
}

// read takes up the notes of a file, and reports whether its process has ended.
func (n *Notes) read(name string) (ended bool) {
	f, err := n.dir.root.OpenFile(name, os.O_RDWR, 0) // NFS locks only what can be written
	if err != nil {
		return false
	}
	defer f.Close()
	ended = flock(f, unix.LOCK_EX|unix.LOCK_NB) == nil
	err = readNotes(n.key, io.LimitReader(f, notesBytes), func(name noteName, fact []byte) { n.book.put(name, fact) })
	if err != nil && ended {
		n.log.Debug("a file of notes ends before it should", "file", name, "err", err)
	}
	return ended
}

// merge writes what is remembered to one file, in the place of those.
func (n *Notes) merge(files []string) (err error) {
	if free, err := n.dir.space(); err != nil || free < notesBytes {
		return errors.Join(err, errors.New("there is no room to make one file of many"))
	}
	out, err := createNotes(n.dir.root, n.key)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = n.dir.root.Remove(out.name)
		}
	}()
	var frame []byte
	for name, fact := range n.book.all {
		if len(frame) > notesFrameBytes-512 {
			err = errors.Join(err, out.append(frame))
			frame = frame[:0]
		}
		frame = appendNote(frame, name, []byte(fact))
	}
	if err = errors.Join(err, out.append(frame), out.f.Close()); err != nil {
		return err
	}
	for _, name := range files {
		_ = n.dir.root.Remove(name)
	}
	return nil
}

// writer writes what is pending, a while after it came.
func (n *Notes) writer() {
	var out *notesFile
	defer func() {
		if out != nil {
			_ = out.f.Close()
		}
	}()
	for ended := false; !ended; {
		select {
		case <-n.quit:
			ended = true
		case <-n.wake:
			select {
			case <-n.quit:
				ended = true
			case <-time.After(notesDelay):
			}
		}
		n.mu.Lock()
		notes := n.pending
		n.pending = nil
		n.mu.Unlock()
		var err error
		if out, err = n.write(out, notes); err != nil {
			n.log.Warn("what was found out of files is not kept for later mounts", "err", err)
			return
		}
	}
}

// write appends notes to the file of this process, while there is room for it.
func (n *Notes) write(out *notesFile, notes []byte) (*notesFile, error) {
	if len(notes) == 0 || out != nil && out.bytes > notesFileBytes {
		return out, nil
	}
	free, err := n.dir.space()
	if err != nil || free < int64(len(notes)) {
		return out, err
	}
	if out == nil {
		if out, err = createNotes(n.dir.root, n.key); err != nil {
			return nil, err
		}
	}
	return out, out.append(notes)
}

// notebook is notes in memory. Two generations make a cheap approximation of LRU: what
// is used moves to the young one, and when that is half of all, the old one is dropped.
type notebook struct {
	most       int
	young, old map[noteName]uint16 // of facts
	facts      []string
	numbers    map[string]uint16
}

func newNotebook(most int) notebook {
	return notebook{most: most, young: map[noteName]uint16{}, numbers: map[string]uint16{}}
}

func (b *notebook) get(name noteName) (fact string, ok bool) {
	i, ok := b.young[name]
	if !ok {
		if i, ok = b.old[name]; !ok {
			return "", false
		}
		b.add(name, i)
	}
	return b.facts[i], true
}

// put reports whether the fact is new.
func (b *notebook) put(name noteName, fact []byte) (news bool) {
	if was, ok := b.get(name); ok && was == string(fact) || len(fact) > 255 {
		return false
	}
	i, ok := b.numbers[string(fact)]
	if !ok {
		if len(b.facts) == notesFacts {
			return false
		}
		i = uint16(len(b.facts))
		b.facts = append(b.facts, string(fact))
		b.numbers[b.facts[i]] = i
	}
	b.add(name, i)
	return true
}

func (b *notebook) add(name noteName, i uint16) {
	if len(b.young) >= b.most/2 {
		b.old, b.young = b.young, map[noteName]uint16{}
	}
	b.young[name] = i
}

// all yields the notes, those that were used long ago first.
func (b *notebook) all(yield func(noteName, string) bool) {
	for name, i := range b.old {
		if _, newer := b.young[name]; !newer && !yield(name, b.facts[i]) {
			return
		}
	}
	for name, i := range b.young {
		if !yield(name, b.facts[i]) {
			return
		}
	}
}
