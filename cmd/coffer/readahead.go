package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// readAheadKiB is how far the kernel reads ahead in a file of a mount made by root:
// as far as one request goes (256 pages since Linux 4.20). Its default of 128 KiB
// makes eight requests of a MiB, and costs the daemon a quarter of the processor
// that a stream takes. More made no difference: what is to come has been fetched
// before the kernel asks for it.
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
	file, err := os.OpenFile(filepath.Join("/sys/class/bdi", entry.Device, "read_ahead_kb"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strconv.Itoa(readAheadKiB))
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return err
}
