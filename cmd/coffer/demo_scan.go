package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// The scan below uses few, but real, probes: chunks of 64 bytes from every
// file. Any of them in the store's directory is a leak.
const probeSize = 64

// scan searches the directories of a store that encrypts and of one that does
// not for pieces of the plaintext. The second shows that the search finds what
// is there to be found, in the very form in which a store would keep it.
func (d *demo) scan(tree, encrypted, plain string) error {
	probes, err := collectProbes(d.path(tree))
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "%d pieces of %d bytes, one from each of the files that were copied\n", len(probes), probeSize)
	leaks := map[string]int{}
	for _, dir := range []string{plain, encrypted} {
		files, found, err := search(d.path(dir), probes)
		if err != nil {
			return err
		}
		if files == 0 {
			return fmt.Errorf("./%s is empty: nothing was proved", dir)
		}
		leaks[dir] = found
		fmt.Fprintf(d.out, "./%-15s %4d of its %d files hold one of them\n", dir, found, files)
	}
	switch {
	case leaks[plain] == 0:
		return errors.New("the search is blind: it does not find the plaintext where it must be")
	case leaks[encrypted] > 0:
		return fmt.Errorf("PLAINTEXT rests in %d files of the store that encrypts", leaks[encrypted])
	}
	return nil
}

// collectProbes takes one piece from the middle of every file long enough.
func collectProbes(dir string) (map[[probeSize]byte]struct{}, error) {
	probes := map[[probeSize]byte]struct{}{}
	err := eachFile(dir, func(text []byte) {
		if len(text) >= 4*probeSize {
			mid := len(text) / 2
			probes[[probeSize]byte(text[mid:mid+probeSize])] = struct{}{}
		}
	})
	return probes, err
}

// search counts the files below dir, and those that hold a probe at any
// offset. Two bytes choose the candidates, so that it runs at memory speed.
func search(dir string, probes map[[probeSize]byte]struct{}) (files, found int, err error) {
	var starts [1 << 16]bool
	for p := range probes {
		starts[int(p[0])<<8|int(p[1])] = true
	}
	err = eachFile(dir, func(text []byte) {
		files++
		for i := 0; i+probeSize <= len(text); i++ {
			if !starts[int(text[i])<<8|int(text[i+1])] {
				continue
			}
			if _, ok := probes[[probeSize]byte(text[i:i+probeSize])]; ok {
				found++
				return
			}
		}
	})
	return files, found, err
}

// eachFile calls do with the content of every regular file below dir.
func eachFile(dir string, do func(text []byte)) error {
	return filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(p)
		if err == nil {
			do(text)
		}
		return err
	})
}
