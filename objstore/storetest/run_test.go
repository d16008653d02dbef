package storetest

import (
	"testing"

	"coffer/objstore"
)

// smallPart keeps runs over memory quick.
const smallPart = 256 << 10

func TestRunOverMemory(t *testing.T) {
	Run(t, Config{Name: "memory", PartSize: smallPart,
		Open: func(*testing.T) objstore.Store { return newMemStore(smallPart) }})
}

func TestRunOverResizedMemory(t *testing.T) {
	Run(t, Config{Name: "resized", PartSize: smallPart,
		Open: func(*testing.T) objstore.Store { return Resize(newMemStore(smallPart)) }})
}
