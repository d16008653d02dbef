package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"coffer/objstore/cse/message"
)

// volumeFormat is the format of the file that is described in FORMAT.md.
const volumeFormat = "coffer volume key 1"

// VolumeFile is a volume key file as it is written down: JSON, in which nothing is
// secret. Nothing in it is authentic before it was opened.
type VolumeFile struct {
	Format string `json:"format"`
	// ID is derived of the volume key.
	ID         string            `json:"id"`
	Recipients []VolumeRecipient `json:"recipients"`
	// MAC is over all of the above, under a key that is derived of the volume key.
	MAC []byte `json:"mac"`
}

// VolumeRecipient is a key that opens a volume key file.
type VolumeRecipient struct {
	// Key is the key as it is called: type, namespace and name.
	Key         string `json:"key"`
	Fingerprint string `json:"fingerprint"`
	// Context is what a key of a KMS wants to see.
	Context map[string]string `json:"context,omitempty"`
	// Provider, Info and Ciphertext are those of an encrypted data key of a message.
	Provider   string `json:"provider"`
	Info       []byte `json:"info"`
	Ciphertext []byte `json:"ciphertext"`
}

// ParseVolume reads a volume key file. What it has more than it should is refused, since
// no MAC is over that.
func ParseVolume(text []byte) (VolumeFile, error) {
	var f VolumeFile
	if len(text) > maxFile {
		return f, invalid("%d bytes are no volume key file", len(text))
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return VolumeFile{}, invalid("no volume key file: %v", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return VolumeFile{}, invalid("something follows the volume key")
	}
	return f, f.validate()
}

func (f VolumeFile) validate() error {
	id, err := hex.DecodeString(f.ID)
	switch {
	case f.Format != volumeFormat:
		return invalid("the format is %.40q, where %q is read", f.Format, volumeFormat)
	case err != nil || len(id) != idBytes:
		return invalid("%.40q is no ID of a volume key", f.ID)
	case len(f.Recipients) == 0:
		return invalid("a volume key needs a recipient")
	case len(f.Recipients) > maxRecipients:
		return invalid("%d recipients, at most %d are possible", len(f.Recipients), maxRecipients)
	case len(f.MAC) != sha256.Size:
		return invalid("a MAC of %d bytes", len(f.MAC))
	}
	for i, r := range f.Recipients {
		if r.Key == "" || r.Provider == "" || len(r.Info) == 0 || len(r.Ciphertext) == 0 {
			return invalid("recipient %d lacks something", i+1)
		}
		if _, err := message.NewContext(r.Context); err != nil {
			return invalid("recipient %d: %v", i+1, err)
		}
	}
	return nil
}

// text is the file's content.
func (f VolumeFile) text() ([]byte, error) {
	text, err := json.MarshalIndent(f, "", "  ")
	return append(text, '\n'), err
}

// ReadVolume reads the volume key file of a name.
func ReadVolume(name string) (VolumeFile, error) {
	text, err := readFile(name)
	if err != nil {
		return VolumeFile{}, fmt.Errorf("volume key file: %w", err)
	}
	f, err := ParseVolume(text)
	if err != nil {
		return VolumeFile{}, fmt.Errorf("volume key file %s: %w", name, err)
	}
	return f, nil
}

// CreateVolume writes a volume key file that was not there.
func CreateVolume(name string, f VolumeFile) error {
	return replaceVolume(name, func() (VolumeFile, fs.FileInfo, error) {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return f, nil, fmt.Errorf("%s exists, and a volume key that is lost loses the data", name)
		}
		return f, nil, nil
	})
}

// UpdateVolume changes a volume key file. Whoever reads it meanwhile sees the old one or
// the new one, and two changes at a time are refused.
func UpdateVolume(name string, change func(VolumeFile) (VolumeFile, error)) error {
	name, err := filepath.EvalSymlinks(name) // the file changes, not what leads to it
	if err != nil {
		return fmt.Errorf("volume key file: %w", err)
	}
	return replaceVolume(name, func() (VolumeFile, fs.FileInfo, error) {
		f, err := ReadVolume(name)
		if err != nil {
			return f, nil, err
		}
		st, err := os.Stat(name)
		if err != nil {
			return f, nil, err
		}
		f, err = change(f)
		return f, st, err
	})
}

// replaceVolume puts what next returns in the place of a file. The new file is the lock
// as well: of those that change it one can make it, on every file system.
func replaceVolume(name string, next func() (f VolumeFile, like fs.FileInfo, err error)) error {
	tmp, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s.new is there: the volume key file is being changed, or that was interrupted; remove it then", name)
	}
	if err != nil {
		return err
	}
	f, like, err := next()
	if err == nil && like != nil {
		err = takeAfter(tmp, like)
	}
	if err == nil {
		err = writeVolume(tmp, f)
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// takeAfter gives a new file mode, owner and group of the one in whose place it comes. An
// owner cannot be kept by others than root; members who read by the group need it.
func takeAfter(to *os.File, like fs.FileInfo) error {
	st := like.Sys().(*syscall.Stat_t)
	err := to.Chown(int(st.Uid), int(st.Gid))
	if err != nil {
		err = to.Chown(-1, int(st.Gid))
	}
	if err != nil && like.Mode()&0o070 != 0 {
		return fmt.Errorf("its group would lose the volume key file: %w", err)
	}
	return to.Chmod(like.Mode().Perm())
}

// writeVolume fills a new file, and waits until it is on the disk.
func writeVolume(to *os.File, f VolumeFile) error {
	text, err := f.text()
	if err != nil {
		return err
	}
	if _, err := to.Write(text); err != nil {
		return err
	}
	return to.Sync()
}
