package s3store

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPartPlanFitsFiveTiB(t *testing.T) {
	for _, base := range []int64{minPartSize, defaultPartSize, 64 << 20, maxPlannedPart} {
		for _, hint := range []int64{0, 1, 1 << 30, 100 << 30, 1 << 40, maxObjectSize, maxObjectSize + 1} {
			p := newPartPlan(base, hint)
			var sum int64
			for n := 1; n <= maxParts; n++ {
				size := p.size(n)
				if size < minPartSize || size > maxPlannedPart {
					t.Fatalf("base %d hint %d: part %d has %d bytes", base, hint, n, size)
				}
				sum += size
			}
			require.GreaterOrEqual(t, sum, int64(maxObjectSize), "base %d hint %d", base, hint)
		}
	}
}

func TestPartPlanSteps(t *testing.T) {
	p := newPartPlan(defaultPartSize, 0)
	for n, want := range map[int]int64{1: 8, 1000: 8, 1001: 32, 2500: 32, 2501: 128, 5000: 128, 5001: 1024, 10000: 1024} {
		require.Equal(t, want<<20, p.size(n), "part %d", n)
	}
	require.Equal(t, int64(8<<20), newPartPlan(defaultPartSize, 30<<30).size(1), "a hint that fits changes nothing")
	require.Equal(t, int64(210<<20), newPartPlan(defaultPartSize, 1<<40).size(1))
}

func TestSlotsBoundMemory(t *testing.T) {
	for size, want := range map[int64]int{5 << 20: 4, 8 << 20: 4, 16 << 20: 3, 32 << 20: 1, 128 << 20: 1, 1 << 30: 1} {
		got := slots(size, writerBudget, 4)
		require.Equal(t, want, got, "%d MiB", size>>20)
		require.LessOrEqual(t, int64(got+1)*size, max(writerBudget, 2*size))
	}
}

func TestPiecesCoverEverything(t *testing.T) {
	for _, n := range []int64{minPartSize, minPartSize + 1, 256 << 20, 256<<20 + 1, 5 << 30, 5<<30 + 1, 1 << 40, maxObjectSize} {
		cuts := pieces(n, 0)
		require.LessOrEqual(t, len(cuts), maxParts/2)
		var sum int64
		for _, c := range cuts {
			require.GreaterOrEqual(t, c, int64(minPartSize))
			require.LessOrEqual(t, c, int64(maxPartSize))
			sum += c
		}
		require.Equal(t, n, sum)
	}
}
