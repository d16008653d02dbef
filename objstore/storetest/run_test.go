package storetest

import (
	"testing"

	"coffer/objstore"
)

// smallPart keeps runs over memory quick.
const smallPart = 256 << 10

func TestRunOverMemory(t *testing.T) {
	Run(t, Config{Name: "memory", PartSize: smallPart, Accept: Differences{NoChecksum: "The store in memory keeps bytes and nothing about them."},
		Open: func(*testing.T) objstore.Store { return newMemStore(smallPart) }})
}

func TestRunOverResizedMemory(t *testing.T) {
	Run(t, Config{Name: "resized", PartSize: smallPart, Accept: Differences{NoChecksum: "The decorator changes the bytes: the store keeps a checksum of others."},
		Open: func(*testing.T) objstore.Store { return Resize(newMemStore(smallPart)) }})
}
