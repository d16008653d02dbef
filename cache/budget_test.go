package cache

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore"
)

func TestBudgetShares(t *testing.T) {
	b := NewBudget(100, 20, 30, nil)
	require.True(t, b.TryHold(30))
	require.False(t, b.TryHold(1), "beyond the limit of held memory")
	require.True(t, b.TryAcquire(50))
	require.False(t, b.TryAcquire(1), "the reserve is for demand")
	require.NoError(t, b.Acquire(t.Context(), 20))
	require.EqualValues(t, 100, b.Used())
	b.ReleaseHeld(30)
	b.Release(70)
	require.Zero(t, b.Used())
	require.ErrorIs(t, b.Acquire(t.Context(), 101), objstore.TooLarge)
	require.Panics(t, func() { b.Release(1) })
}

func TestBudgetServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relieved := 0
		b := NewBudget(100, 0, 0, func(bool) { relieved++ })
		require.NoError(t, b.Acquire(t.Context(), 90))
		var mu sync.Mutex
		served := map[int64]bool{}
		for _, n := range []int64{60, 5, 50} {
			go func() {
				if b.Acquire(t.Context(), n) == nil {
					mu.Lock()
					served[n] = true
					mu.Unlock()
				}
			}()
			synctest.Wait()
		}
		require.Empty(t, served, "the small one waits behind the large one")
		require.True(t, b.Contended())
		require.Equal(t, 3, relieved)
		require.False(t, b.TryAcquire(1), "speculation waits behind demand")
		require.False(t, b.TryHold(0))
		b.Release(60)
		synctest.Wait()
		require.Equal(t, map[int64]bool{60: true, 5: true}, served)
		b.Release(90)
		synctest.Wait()
		require.Len(t, served, 3)
		require.False(t, b.Contended())
	})
}

func TestBudgetWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100, 0, 0, nil)
		require.NoError(t, b.Acquire(t.Context(), 90))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var small error = objstore.Unknown
		go func() { time.Sleep(time.Millisecond); small = b.Acquire(t.Context(), 5) }()
		err := b.Acquire(ctx, 20)
		require.ErrorIs(t, err, objstore.Unavailable)
		synctest.Wait()
		require.NoError(t, small, "who queued behind is served when the front gives up")
		require.EqualValues(t, 95, b.Used())

		ctx2, cancel2 := context.WithCancel(t.Context())
		cancel2()
		require.ErrorIs(t, b.Acquire(ctx2, 20), objstore.Canceled)
	})
}

func TestBudgetRandom(t *testing.T) {
	b := NewBudget(50, 10, 10, nil)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2000 {
				n := 1 + rng.Int64N(50)
				switch rng.IntN(3) {
				case 0:
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(100))*time.Microsecond)
					if b.Acquire(ctx, n) == nil {
						b.Release(n)
					}
					cancel()
				case 1:
					if b.Acquire(context.Background(), n) == nil {
						b.Release(n)
					}
				case 2:
					if b.TryAcquire(n) {
						b.Release(n)
					}
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, b.Used())
	require.False(t, b.Contended())
}
