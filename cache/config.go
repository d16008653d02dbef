package cache

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	// DefaultBlockBytes is the unit of caching. Reads that come back to a block
	// fetch all of it: at the first-byte latency of an object store (10-30 ms)
	// the transfer of 1 MiB adds about as much again, and a reader waits only
	// for its bytes.
	DefaultBlockBytes = 1 << 20
	// DefaultFetchTimeout bounds one ranged Get with its body, in line with
	// the deadline of any operation on the store.
	DefaultFetchTimeout = 5 * time.Minute

	minBlockBytes = 64 << 10
	maxBlockBytes = 16 << 20
	// minBlocks is the smallest budget in blocks: with it the share that is
	// kept for demand reads is two blocks, what one unaligned read touches.
	minBlocks = 16
)

// Config describes a [Cache]. The zero value of a field is its default.
type Config struct {
	// MemoryBytes is the byte budget of everything that the cache holds in
	// memory. Default: [DefaultMemory]. At least 16 blocks.
	MemoryBytes int64
	// BlockBytes is the size of a block: a power of two from 64 KiB to
	// 16 MiB. Default: [DefaultBlockBytes].
	BlockBytes int64
	// ScratchDir is where stages keep their sealed bytes, in files without a
	// name. Default: the system's directory for temporary files.
	ScratchDir string
	// DiskDir is where complete blocks are kept, sealed, in a directory
	// coffer-cache-UID. Default: no disk tier.
	DiskDir string
	// DiskBytes bounds what is in the tier's directory. Default: a tenth of
	// what is free at the start. 5 % of the file system stay free anyway.
	DiskBytes int64
	// DiskKey is 32 bytes under which blocks outlive this cache, for others
	// with the same key. Default: a random key, and nothing outlives it.
	DiskKey []byte
	// StoreID names the store (endpoint and region): blocks of different
	// stores never share a key. Required.
	StoreID string
	// FetchTimeout bounds one transfer from the store. Default:
	// [DefaultFetchTimeout].
	FetchTimeout time.Duration
	// Logger receives what no caller can be told. Default: none.
	Logger *slog.Logger
}

// Validate reports what is wrong with the configuration. It changes nothing.
func (c Config) Validate() error {
	var errs []error
	block := c.BlockBytes
	if block == 0 {
		block = DefaultBlockBytes
	}
	if block < minBlockBytes || block > maxBlockBytes || block&(block-1) != 0 {
		errs = append(errs, fmt.Errorf("cache: block size of %d bytes: must be a power of two from %d to %d", c.BlockBytes, minBlockBytes, maxBlockBytes))
	} else if c.MemoryBytes != 0 && c.MemoryBytes < minBlocks*block {
		errs = append(errs, fmt.Errorf("cache: memory of %d bytes: must be at least %d blocks, %d bytes", c.MemoryBytes, minBlocks, minBlocks*block))
	}
	if c.DiskBytes < 0 || c.DiskDir == "" && (c.DiskBytes != 0 || c.DiskKey != nil) {
		errs = append(errs, fmt.Errorf("cache: %d bytes and a key of %d bytes for a disk tier in %q", c.DiskBytes, len(c.DiskKey), c.DiskDir))
	}
	if c.StoreID == "" {
		errs = append(errs, errors.New("cache: the store has no identity"))
	}
	if c.FetchTimeout < 0 {
		errs = append(errs, fmt.Errorf("cache: fetch timeout of %v is negative", c.FetchTimeout))
	}
	return errors.Join(errs...)
}
