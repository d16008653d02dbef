package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"coffer/cache"
)

// Keys for data that is kept when its commit fails come from a file, or are
// random and rest in the kernel, in the keyring of the user (keyrings(7)): no
// disk has them, and any process of the user can open what another has kept,
// until the machine restarts. Kernels before 5.3 drop that keyring with the
// last process of the user.

// rescueKeyPrefix begins the description of such a key; its ID follows.
const rescueKeyPrefix = "coffer:rescue:"

// errNoKeyring tells that the kernel keeps no keys for us: containers often
// forbid it.
var errNoKeyring = errors.New("the kernel's keyring is not available")

// rescueKeys returns the keys that kept data may be sealed under.
func rescueKeys(file string) ([]*cache.KeepKey, error) {
	if file != "" {
		k, err := rescueKeyOfFile(file)
		if err != nil {
			return nil, err
		}
		inKernel, _ := kernelKeys() // beside the file, for what was kept without it
		return append([]*cache.KeepKey{k}, inKernel...), nil
	}
	keys, err := kernelKeys()
	if err != nil && !errors.Is(err, errNoKeyring) {
		return nil, err
	}
	return keys, nil
}

// rescueKey returns the key to seal under: that of the file, or one in the
// kernel, which is made when there is none.
func rescueKey(file string) (*cache.KeepKey, error) {
	if file != "" {
		return rescueKeyOfFile(file)
	}
	keys, err := kernelKeys()
	if err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		return keys[0], nil
	}
	raw := make([]byte, 32)
	defer clear(raw)
	rand.Read(raw) // never fails: see crypto/rand
	k, err := cache.NewKeepKey(raw)
	if err != nil {
		return nil, err
	}
	if err := addKernelKey(rescueKeyPrefix+k.ID(), raw); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeyring, err)
	}
	return k, nil
}

// addKernelKey puts a key into the user's keyring, to be read by all processes of
// the user. It goes through the keyring of this thread: to say who may read it
// one must possess a key, and sessions exist, those of systemd's services for
// one, that do not possess what is in the user's keyring. The description is the
// key's own: the same one would replace the key of a mount that begins at the
// same moment.
func addKernelKey(description string, raw []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	serial, err := unix.AddKey("user", description, raw, unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return fmt.Errorf("add_key: %w", err)
	}
	defer unix.KeyctlInt(unix.KEYCTL_UNLINK, serial, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	const possessorAll, userViewReadSearch = 0x3f000000, 0x000b0000
	if err := unix.KeyctlSetperm(serial, possessorAll|userViewReadSearch); err != nil {
		return fmt.Errorf("keyctl setperm: %w", err)
	}
	if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, serial, unix.KEY_SPEC_USER_KEYRING, 0, 0); err != nil {
		return fmt.Errorf("keyctl link: %w", err)
	}
	return nil
}

func rescueKeyOfFile(name string) (*cache.KeepKey, error) {
	raw, err := readKeyFile("rescue key file", name)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return cache.NewKeepKey(raw)
}

// kernelKeys returns the keys that are in the user's keyring.
func kernelKeys() ([]*cache.KeepKey, error) {
	list, err := readKernelKey(unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKeyring, err)
	}
	var keys []*cache.KeepKey
	for ; len(list) >= 4; list = list[4:] {
		serial := int(int32(binary.NativeEndian.Uint32(list)))
		// type;uid;gid;permissions;description
		about, err := unix.KeyctlString(unix.KEYCTL_DESCRIBE, serial)
		if err != nil {
			continue // it went meanwhile, or is not ours to see
		}
		id, ours := strings.CutPrefix(about[strings.LastIndexByte(about, ';')+1:], rescueKeyPrefix)
		if !ours {
			continue
		}
		raw, err := readKernelKey(serial)
		if err != nil {
			continue
		}
		if k, err := cache.NewKeepKey(raw); err == nil && k.ID() == id {
			keys = append(keys, k)
		}
		clear(raw)
	}
	return keys, nil
}

// readKernelKey returns what a key or keyring holds.
func readKernelKey(serial int) ([]byte, error) {
	for size := 256; ; size *= 4 {
		buf := make([]byte, size)
		n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, serial, buf, 0)
		if err != nil {
			return nil, err
		}
		if n <= size {
			return buf[:n], nil
		}
	}
}
