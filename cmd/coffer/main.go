// Command coffer mounts encrypted S3 buckets as a file system.
//
// This package is the only reader of flags, environment and config file. It
// assembles the layers below (objstore/s3store, cache, fs), keeps them running
// as a daemon, and talks to that daemon over a control socket. One file holds
// one subcommand; what several share:
//
//	config.go      the settings, their sources and their precedence
//	options.go     every flag of a mount, once: name, group, text
//	mountopts.go   the -o language of mount(8) and fstab
//	source.go      s3://bucket/prefix
//	mountpoint.go  what lies at a mount point before and after
//	assemble.go    the layers of a mount, built upward
//	serve.go       one mount as a process: log, signals, readiness
//	session.go     the ways in which a mount ends, and what must be flushed
//	daemon.go      the re-exec that outlives the shell
//	control.go     the socket of a running mount
//	exit.go        exit codes
package main

import "os"

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
