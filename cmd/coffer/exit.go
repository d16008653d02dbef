package main

import (
	"context"
	"errors"
	"fmt"

	"coffer/objstore"
)

// Exit codes of every subcommand but run, which returns its command's. They
// are part of the interface: scripts depend on them.
const (
	exitOK          = 0
	exitFailure     = 1 // anything that has no code of its own
	exitUsage       = 2 // command line, environment or config file
	exitPermission  = 3 // no credentials, or the store refuses them
	exitUnavailable = 4 // the endpoint does not answer
	exitUnencrypted = 5 // encryption is not provided, or not proved

	// exitRun is run's code when Coffer itself fails; 126 and 127 tell that
	// the command could not be started, as env(1) and timeout(1) do.
	exitRun         = 125
	exitCannotExec  = 126
	exitNoSuchExec  = 127
	exitSignalStart = 128
)

const exitCodeHelp = `Exit codes:
  0  success
  1  failure; the one line on stderr says which
  2  usage: command line, environment or config file
  3  no credentials, or the store refuses them
  4  the endpoint does not answer
  5  encryption is demanded and not provided, or not proved`

// exitError is an error that ends the process with a code of its own. A nil
// err means that everything has been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageErrorf makes an error that ends with exitUsage.
func usageErrorf(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode maps an error to the process's exit code.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return exitUnavailable
	}
	switch objstore.KindOf(err) {
	case objstore.Permission, objstore.Expired, objstore.KeyUnavailable:
		return exitPermission
	case objstore.Unavailable, objstore.Throttled:
		return exitUnavailable
	case objstore.Unencrypted:
		return exitUnencrypted
	case objstore.InvalidName, objstore.NameTooLong:
		return exitUsage
	}
	return exitFailure
}
