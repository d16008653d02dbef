package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const umountLong = `Ask the daemon of a mount to write everything to the store and to unmount, and
wait until it has ended. When the command returns 0, all data is in the store.

Files whose data could not be written are listed, one a line, and the mount
stays so that they can be saved elsewhere; --discard unmounts all the same.
Data that was kept when its program was told that it is not stored has files of
its own, which are listed, or keeps the mount as well; see coffer rescue.
While programs have files open in the mount, or work inside it, the command
fails; --lazy takes the mount out of the file tree at once, and the daemon
ends when the last file is closed.

A dead mount, whose daemon was killed, is taken away; the command fails all the
same, since nobody can tell what was still to be written. root can unmount for
every user.`

// newUmount builds "coffer umount".
func newUmount(a *app) *cobra.Command {
	var lazy, discard bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "umount [flags] MOUNTPOINT",
		Aliases: []string{"unmount"},
		Short:   "Flush and unmount, and wait for it",
		Long:    umountLong + "\n\n" + exitCodeHelp,
		Example: "  coffer umount ~/s3\n  coffer umount --lazy ~/s3",
		Args:    argCount(1, 1, "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := canonicalMountPoint(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer cancel()
			ctx, cancelTimeout := context.WithTimeout(ctx, timeout)
			defer cancelTimeout()
			unflushed, err := a.umount(ctx, dir, lazy, discard)
			a.sayUnflushed(unflushed)
			if err == nil && len(unflushed) > 0 {
				err = fmt.Errorf("umount %s: unmounted, but the data of %d files is not in the store", dir, len(unflushed))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&lazy, "lazy", false, "detach now, even if in use; do not wait for the end")
	cmd.Flags().BoolVar(&discard, "discard", false, "unmount even if data could not be written to the store: it is LOST")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Hour, "give up waiting after this time; the daemon goes on")
	return cmd
}

// sayUnflushed prints a line for each file whose data is not in the store.
func (a *app) sayUnflushed(texts []string) {
	for _, t := range texts {
		fmt.Fprintf(a.stderr, "coffer: not in the store: %s\n", t)
	}
}

// sayKept prints a line for each file with data that could not be stored.
func (a *app) sayKept(files []string) {
	for _, f := range files {
		fmt.Fprintf(a.stderr, "coffer: kept, not stored: coffer rescue commit %s\n", f)
	}
}

// umount ends the mount at dir through its daemon, or without one. The texts
// name files whose data is not in the store; there may be some whether or not
// it is unmounted, which the error tells.
func (a *app) umount(ctx context.Context, dir string, lazy, discard bool) (unflushed []string, err error) {
	entry, mounted, err := mountAt(dir)
	if err != nil {
		return nil, err
	}
	if !mounted {
		entry = mountEntry{Dir: dir, UID: -1}
	}
	client, err := dialMount(entry, a.env)
	if errors.Is(err, errNoDaemon) {
		return nil, umountAlone(dir, entry, mounted, lazy)
	}
	if err != nil {
		return nil, err
	}
	defer client.Close()
	reply, err := client.call(ctx, controlRequest{Op: "unmount", Lazy: lazy, Discard: discard})
	if err != nil && ctx.Err() == nil {
		// The daemon died under our hands; what is left is a dead mount.
		if _, serr := statTimeout(dir, time.Second); errors.Is(serr, unix.ENOTCONN) {
			return nil, umountAlone(dir, entry, mounted, lazy)
		}
	}
	if reply.Done {
		a.sayKept(reply.Kept)
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("umount %s: %w", dir, err)
	case reply.Busy:
		return reply.Unflushed, fmt.Errorf("umount %s: in use: a program has files open or its working directory there (fuser -vm %s lists them; --lazy detaches)", dir, dir)
	case !reply.Done && len(reply.Unflushed) > 0:
		return reply.Unflushed, fmt.Errorf("umount %s: %w (%d files; --discard unmounts and loses it)", dir, errUnflushed, len(reply.Unflushed))
	case !reply.Done:
		return nil, fmt.Errorf("umount %s: %s", dir, reply.Error)
	}
	if lazy {
		return reply.Unflushed, nil
	}
	if err := client.waitGone(ctx); err != nil {
		err = fmt.Errorf("umount %s: unmounted, but the daemon (pid %d) has not ended: %w", dir, reply.PID, err)
		return reply.Unflushed, err
	}
	return reply.Unflushed, nil
}

// errUnflushed tells that a mount goes on for the sake of data that it has.
var errUnflushed = errors.New("data is not in the store; it stays mounted")

// errNotMounted tells that there was nothing to unmount.
var errNotMounted = errors.New("nothing is mounted there")

// errDied tells that a mount was found without its daemon.
var errDied = errors.New("its daemon had been killed; the mount is removed, but files that were being written are not in the store")

// umountAlone unmounts where no daemon answers: a dead mount, or one whose
// socket is gone. In the second case all data of closed files is in the store,
// and the kernel refuses while files are open.
func umountAlone(dir string, entry mountEntry, mounted, lazy bool) error {
	switch {
	case !mounted:
		return fmt.Errorf("umount %s: %w", dir, errNotMounted)
	case entry.Type != fsType:
		return fmt.Errorf("umount %s: that is a mount of type %s, not one of Coffer", dir, entry.Type)
	}
	_, err := statTimeout(dir, 10*time.Second)
	dead := errors.Is(err, unix.ENOTCONN)
	if lazy || dead {
		// Programs that still use a dead mount get errors either way.
		err = detachMount(dir)
	} else {
		err = plainUnmount(dir)
	}
	if err == nil && dead {
		err = errDied
	}
	if err != nil {
		return fmt.Errorf("umount %s: %w", dir, err)
	}
	return nil
}

const statusLong = `Print what a mount is doing, as JSON: open files, files whose data is not yet
in the store, what the cache holds, the daemon's process id and log file; with
--cse-keyring how often something was refused that is damaged, or plaintext.
With --flush, everything is written to the store first.`

// newStatus builds "coffer status".
func newStatus(a *app) *cobra.Command {
	var flush bool
	cmd := &cobra.Command{
		Use:     "status [--flush] MOUNTPOINT",
		Short:   "Show what a mount is doing, or flush it",
		Long:    statusLong + "\n\n" + exitCodeHelp,
		Example: "  coffer status ~/s3\n  coffer status --flush ~/s3",
		Args:    argCount(1, 1, "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := canonicalMountPoint(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
			defer cancel()
			client, err := dialControl(dir, a.env, os.Getuid())
			if err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			defer client.Close()
			var flushed controlReply
			if flush {
				if flushed, err = client.call(ctx, controlRequest{Op: "flush"}); err != nil {
					return err
				}
			}
			reply, err := client.call(ctx, controlRequest{Op: "status"})
			if err != nil {
				return err
			}
			reply.Unflushed = flushed.Unflushed
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			if err := enc.Encode(reply); err != nil {
				return err
			}
			if flush && !flushed.Done {
				return fmt.Errorf("%d files are not in the store", len(flushed.Unflushed))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&flush, "flush", false, "write everything to the store first; fails when something cannot be")
	return cmd
}
