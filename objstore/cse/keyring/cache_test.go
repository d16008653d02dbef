package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
)

// slow is a key that counts its operations, and takes a second for each as a
// KMS far away does.
type slow struct {
	keyring.Key
	wraps, unwraps atomic.Int32
	fail           atomic.Bool
}

func (s *slow) Wrap(ctx context.Context, key message.DataKey, c message.Context) (message.EDK, error) {
	s.wraps.Add(1)
	if err := s.wait(ctx); err != nil {
		return message.EDK{}, err
	}
	return s.Key.Wrap(ctx, key, c)
}

func (s *slow) Unwrap(ctx context.Context, suite message.Suite, c message.Context, e message.EDK) (message.DataKey, error) {
	s.unwraps.Add(1)
	if err := s.wait(ctx); err != nil {
		return message.DataKey{}, err
	}
	return s.Key.Unwrap(ctx, suite, c, e)
}

func (s *slow) wait(ctx context.Context) error {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.fail.Load() {
		return errors.New("throttled")
	}
	return nil
}

func slowCache(t *testing.T) (*slow, *keyring.Cache) {
	s := &slow{Key: rawAES(t, "aes", 32, 1)}
	return s, keyring.NewCache(ringOf(t, keyring.Member{Key: s}))
}

// A million files are 16 operations each way, and this is a fifth of them.
func TestOneDataKeyServesForManyFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := slowCache(t)
		context := contextOf(t, map[string]string{"coffer-vol": "v"})
		envelopes := map[string]keyring.Envelope{}
		last := ""
		for i := range 200_000 {
			e, err := c.Wrap(t.Context(), context)
			if err != nil {
				t.Fatal(err)
			}
			if key := string(e.Key.Bytes()); i%65536 == 0 {
				if envelopes[key].EDKs != nil {
					t.Fatalf("message %d: a data key comes back", i)
				}
				envelopes[key], last = e, key
			} else if key != last {
				t.Fatalf("message %d: another data key", i)
			}
		}
		require.Equal(t, int32(4), s.wraps.Load())
		for range 1000 {
			for _, e := range envelopes {
				key, by, err := c.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs)
				if err != nil || string(key.Bytes()) != string(e.Key.Bytes()) || by != s {
					t.Fatalf("by %v, %v", by, err)
				}
			}
		}
		require.Equal(t, int32(4), s.unwraps.Load())
	})
}

func TestDataKeysGetOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := slowCache(t)
		wrap := func() keyring.Envelope {
			e, err := c.Wrap(t.Context(), message.Context{})
			require.NoError(t, err)
			return e
		}
		unwrap := func(e keyring.Envelope) {
			key, _, err := c.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs)
			require.NoError(t, err)
			require.Equal(t, e.Key.Bytes(), key.Bytes())
		}
		first := wrap()
		unwrap(first)
		time.Sleep(time.Hour - 3*time.Second)
		require.Equal(t, first.Key.Bytes(), wrap().Key.Bytes())
		unwrap(first)
		require.Equal(t, [2]int32{1, 1}, [2]int32{s.wraps.Load(), s.unwraps.Load()})
		time.Sleep(time.Second) // the hour counts from before the keys were asked
		second := wrap()
		require.NotEqual(t, first.Key.Bytes(), second.Key.Bytes())
		unwrap(first)
		require.Equal(t, [2]int32{2, 2}, [2]int32{s.wraps.Load(), s.unwraps.Load()})
	})
}

// A context is authenticated with the data key, so that another one needs
// another data key.
func TestContextsDoNotShareDataKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := slowCache(t)
		a, b := contextOf(t, map[string]string{"k": "a"}), contextOf(t, map[string]string{"k": "b"})
		ea, err := c.Wrap(t.Context(), a)
		require.NoError(t, err)
		eb, err := c.Wrap(t.Context(), b)
		require.NoError(t, err)
		require.NotEqual(t, ea.Key.Bytes(), eb.Key.Bytes())
		_, _, err = c.Unwrap(t.Context(), message.Committed, ea.Context, ea.EDKs)
		require.NoError(t, err)
		_, _, err = c.Unwrap(t.Context(), message.Committed, eb.Context, ea.EDKs)
		require.Error(t, err)
		_, _, err = c.Unwrap(t.Context(), 0x0078, ea.Context, ea.EDKs)
		require.NoError(t, err)
		require.Equal(t, int32(3), s.unwraps.Load(), "suite and context are part of what is remembered")
	})
}

func TestManyCallersWaitForOneOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := slowCache(t)
		var wg sync.WaitGroup
		var e keyring.Envelope
		for i := range 50 {
			wg.Go(func() {
				got, err := c.Wrap(t.Context(), message.Context{})
				if err != nil {
					t.Error(err)
				}
				if i == 0 {
					e = got
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), s.wraps.Load())
		for range 50 {
			wg.Go(func() {
				if _, _, err := c.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), s.unwraps.Load())
	})
}

// Whoever gives up does not take the others along, and what failed is asked
// for again.
func TestCallersThatGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := slowCache(t)
		e, err := c.Wrap(t.Context(), message.Context{})
		require.NoError(t, err)
		short := func() context.Context {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			t.Cleanup(cancel)
			return ctx
		}
		other := contextOf(t, map[string]string{"k": "v"})
		for name, call := range map[string]func(context.Context) error{
			"wrap": func(ctx context.Context) error { _, err := c.Wrap(ctx, other); return err },
			"unwrap": func(ctx context.Context) error {
				_, _, err := c.Unwrap(ctx, message.Committed, e.Context, e.EDKs)
				return err
			},
		} {
			var leader, waiter, patient error
			var wg sync.WaitGroup
			wg.Go(func() { leader = call(short()) })
			synctest.Wait()
			wg.Go(func() { waiter = call(short()) })
			wg.Go(func() { patient = call(t.Context()) })
			wg.Wait()
			require.ErrorIs(t, leader, context.DeadlineExceeded, name)
			require.ErrorIs(t, waiter, context.DeadlineExceeded, name)
			require.NoError(t, patient, name)
		}

		s, c := slowCache(t)
		s.fail.Store(true)
		_, err = c.Wrap(t.Context(), message.Context{})
		require.ErrorContains(t, err, "raw-aes tests/aes: throttled")
		_, _, err = c.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs)
		require.ErrorContains(t, err, "throttled")
		s.fail.Store(false)
		_, err = c.Wrap(t.Context(), message.Context{})
		require.NoError(t, err)
		_, _, err = c.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs)
		require.NoError(t, err)
	})
}

// The data keys that were used last are remembered, and no more than 4096.
func TestDataKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{Key: rawAES(t, "aes", 32, 1)}
		c := keyring.NewCache(ringOf(t, keyring.Member{Key: quick{s}})) // all of it is younger than an hour
		wrapped := func(i int) []message.EDK {
			e, err := s.Key.Wrap(t.Context(), message.NewDataKey([]byte(fmt.Sprintf("%032d", i))), message.Context{})
			require.NoError(t, err)
			return []message.EDK{e}
		}
		unwrap := func(edks []message.EDK) {
			_, _, err := c.Unwrap(t.Context(), message.Committed, message.Context{}, edks)
			require.NoError(t, err)
		}
		first, second := wrapped(0), wrapped(1)
		unwrap(first)
		unwrap(second)
		for i := 2; i < 4096; i++ {
			unwrap(wrapped(i))
		}
		unwrap(first)
		require.Equal(t, int32(4096), s.unwraps.Load())
		unwrap(wrapped(4096)) // the second one was used least recently
		unwrap(first)
		require.Equal(t, int32(4097), s.unwraps.Load())
		unwrap(second)
		require.Equal(t, int32(4098), s.unwraps.Load())
	})
}

// quick counts as slow does, and takes no time.
type quick struct{ *slow }

func (q quick) Unwrap(ctx context.Context, suite message.Suite, c message.Context, e message.EDK) (message.DataKey, error) {
	q.unwraps.Add(1)
	return q.Key.Unwrap(ctx, suite, c, e)
}
