package fs

import (
	"context"
	"errors"
	"log/slog"
	"syscall"

	"coffer/objstore"
)

// errnos is the one table from kinds of error to what a program sees.
var errnos = map[objstore.Kind]syscall.Errno{
	objstore.Unknown:        syscall.EIO,
	objstore.NotExist:       syscall.ENOENT,
	objstore.Exist:          syscall.EEXIST,
	objstore.NotEmpty:       syscall.ENOTEMPTY,
	objstore.Permission:     syscall.EACCES,
	objstore.KeyUnavailable: syscall.EACCES,
	objstore.Unencrypted:    syscall.EACCES,
	objstore.Stale:          syscall.ESTALE,
	objstore.Conflict:       syscall.EBUSY,
	objstore.Quota:          syscall.EDQUOT,
	objstore.NoSpace:        syscall.ENOSPC,
	objstore.TooLarge:       syscall.EFBIG,
	objstore.NameTooLong:    syscall.ENAMETOOLONG,
	objstore.InvalidName:    syscall.EINVAL,
	objstore.InvalidRange:   syscall.EIO,
	objstore.Throttled:      syscall.EIO,
	objstore.Unavailable:    syscall.EIO,
	objstore.Expired:        syscall.EACCES,
	objstore.Archived:       syscall.EIO,
	objstore.Unsupported:    syscall.ENOTSUP,
	objstore.Canceled:       syscall.EINTR,
	objstore.Integrity:      syscall.EIO,
}

// quiet kinds are answers, not troubles: programs ask for what is absent all
// day long, and a log that says so hides the line that matters. Unencrypted is
// explained once a bucket, see filesystem.protected, and not for each file.
func quiet(k objstore.Kind) bool {
	switch k {
	case objstore.NotExist, objstore.Exist, objstore.NotEmpty, objstore.Canceled, objstore.NameTooLong, objstore.Stale, objstore.Unencrypted:
		return true
	}
	return false
}

// toErrno maps err, without a log line.
func toErrno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	k := objstore.KindOf(err)
	if k == objstore.Unknown && errors.Is(err, context.Canceled) {
		k = objstore.Canceled
	}
	return errnos[k]
}

// errno maps err to what the program sees and logs it, here and nowhere else,
// unless it is one of the quiet kinds.
func (f *filesystem) errno(op, path string, err error) syscall.Errno {
	e := toErrno(err)
	if e == 0 {
		return 0
	}
	k := objstore.KindOf(err)
	if k == objstore.Integrity {
		// Once: programs, and the kernel ahead of them, go on to ask for what is damaged.
		f.warnOnce("integrity "+op+" "+path, "operation failed", "op", op, "path", path, "errno", e.Error(), "err", err)
		return e
	}
	level := slog.LevelWarn
	if quiet(k) || e == syscall.EINTR {
		level = slog.LevelDebug
	}
	f.log.Log(context.Background(), level, "operation failed", "op", op, "path", path, "errno", e.Error(), "err", err)
	return e
}
