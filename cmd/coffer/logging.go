package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
)

// maxAutoLog bounds the log file that a detached mount keeps when none is
// named: at this size it is renamed to NAME.1 and begun again, so that a
// mount that runs for months cannot fill a memory-backed run directory.
const maxAutoLog = 4 << 20

// newLogger returns a logger that writes to w as the settings ask. Nothing
// secret is ever given to it: credentials stay inside s3store.
func newLogger(w io.Writer, cfg Config) *slog.Logger {
	opts := &slog.HandlerOptions{Level: slogLevel(cfg.LogLevel.value)}
	if cfg.LogFormat.value == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func slogLevel(name string) slog.Level {
	switch name {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// countingHandler counts records of level warn and above. A log in which
// somebody may want to look is kept after the mount has ended.
type countingHandler struct {
	slog.Handler
	warnings *atomic.Int64
}

func (h countingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		h.warnings.Add(1)
	}
	return h.Handler.Handle(ctx, r)
}

func (h countingHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return countingHandler{h.Handler.WithAttrs(as), h.warnings}
}

func (h countingHandler) WithGroup(name string) slog.Handler {
	return countingHandler{h.Handler.WithGroup(name), h.warnings}
}

// logFile appends to a file, and begins it again when it has grown beyond
// limit bytes (0: never). Safe for concurrent use.
type logFile struct {
	name  string
	limit int64

	mu   sync.Mutex
	file *os.File
	size int64
}

// openLogFile opens name for appending, readable by its owner only.
func openLogFile(name string, limit int64) (*logFile, error) {
	l := &logFile{name: name, limit: limit}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, st.Size()
	return nil
}

// Write appends p as one record.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit > 0 && l.size+int64(len(p)) > l.limit && l.size > 0 {
		// When the rename fails the log goes on in the old file: a log
		// that is too long is better than none.
		if os.Rename(l.name, l.name+".1") == nil {
			old := l.file
			if err := l.open(); err != nil {
				l.file = old
				return 0, err
			}
			_ = old.Close()
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// Fd returns the descriptor that is written to now, for the standard error
// of a detached process: a panic's text must land somewhere.
func (l *logFile) Fd() uintptr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Fd()
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// remove deletes the file and the one before it.
func (l *logFile) remove() {
	_ = os.Remove(l.name)
	_ = os.Remove(l.name + ".1")
}
