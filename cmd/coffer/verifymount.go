package main

import (
	"context"
	"path"
	"strings"

	"coffer/fs"
	"coffer/objstore/cse"
)

// servedMount is a mount with what its status and its control socket tell beyond it.
type servedMount struct {
	*fs.Mounted
	src   source
	store *connection
}

// mountStatus is what "coffer status" prints.
type mountStatus struct {
	fs.Status
	// CSE is nil where nothing is encrypted on this side.
	CSE *cse.Stats `json:"cse,omitempty"`
}

// Status implements mounted.
func (m servedMount) Status() any {
	s := mountStatus{Status: m.Mounted.Status()}
	if store, ok := m.store.Store.(interface{ Stats() cse.Stats }); ok {
		stats := store.Stats()
		s.CSE = &stats
	}
	return s
}

// maxMountJobs bounds how many objects of a mount are verified at a time, so that its
// programs get their share of the store and of this machine.
const maxMountJobs = 16

// Verify implements mounted. What the mount has not stored yet is told as skipped: its
// object, if there is one, is the version before.
func (m servedMount) Verify(ctx context.Context, name string, jobs int, tell func(verifyReport) error) error {
	store, err := m.store.unseen()
	if err != nil {
		return err
	}
	trees, err := m.trees(ctx, name)
	if err != nil {
		return err
	}
	if skipped := unstored(m.DirtyFiles(), trees); len(skipped) > 0 {
		if err := tell(verifyReport{Skipped: skipped}); err != nil {
			return err
		}
	}
	return newVerifier(store, max(1, min(jobs, maxMountJobs)), tell).run(ctx, trees)
}

// trees returns where in the store lies what is called name below the root of the mount.
func (m servedMount) trees(ctx context.Context, name string) ([]source, error) {
	src := treeIn(m.src, name)
	if src.Bucket != "" {
		return []source{src}, nil
	}
	buckets, err := m.store.Buckets(ctx)
	if err != nil {
		return nil, err
	}
	var all []source
	for _, b := range buckets {
		all = append(all, source{Bucket: b.Name})
	}
	return all, nil
}

// treeIn returns the source of a directory, or of a file, in a mount of root.
func treeIn(root source, name string) source {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if root.Bucket == "" {
		root.Bucket, root.Prefix, _ = strings.Cut(name, "/")
		return root
	}
	root.Prefix = strings.TrimPrefix(path.Join(root.Prefix, name), "/")
	return root
}

// unstored returns those of the files that lie in a tree.
func unstored(files []fs.DirtyFile, trees []source) []skippedObject {
	var skipped []skippedObject
	for _, f := range files {
		bucket, key, _ := strings.Cut(f.Path, "/")
		for _, t := range trees {
			if t.Bucket == bucket && (t.Prefix == "" || key == t.Prefix || strings.HasPrefix(key, t.Prefix+"/")) {
				skipped = append(skipped, skippedObject{bucket, key, "not stored yet"})
			}
		}
	}
	return skipped
}
