package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// readAheadKiB is how far the kernel reads ahead in a file of a mount made by root:
// as far as one request goes (256 pages since Linux 4.20). Its default of 128 KiB
// makes eight requests of a MiB, and costs the daemon a quarter of the processor
// that a stream takes. With more nothing was faster, for what is to come has been
// fetched before the kernel asks for it; and the kernel brings as much for each page
// of a mapped file that is touched somewhere.
const readAheadKiB = 1024

// raiseReadAhead sets it for the mount at dir. Only root may; a mount whose
// descriptor was inherited is somewhere that is not known here.
func raiseReadAhead(dir string) error {
	entry, mounted, err := mountAt(dir)
	if err != nil {
		return err
	}
	if !mounted {
		return fmt.Errorf("%s is not known as a mount", dir)
	}
	file := filepath.Join("/sys/class/bdi", entry.Device, "read_ahead_kb")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || now >= readAheadKiB {
		return err // a udev rule may want more
	}
	return os.WriteFile(file, []byte(strconv.Itoa(readAheadKiB)), 0)
}
