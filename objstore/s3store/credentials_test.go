package s3store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
)

func static(id string) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(id, "secret", "")
}

func TestManyRefusalsReadTheChainOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int32
		c := newCredentialSource(static("old"), func(context.Context) (aws.CredentialsProvider, error) {
			time.Sleep(time.Second)
			return static(fmt.Sprintf("new%d", loads.Add(1))), nil
		})
		old, err := c.Retrieve(t.Context())
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if err := c.refresh(t.Context(), old, true); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, int32(1), loads.Load())
		v, err := c.Retrieve(t.Context())
		require.NoError(t, err)
		require.Equal(t, "new1", v.AccessKeyID)
	})
}

func TestChainWithNothingNewerIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int32
		c := newCredentialSource(static("same"), func(context.Context) (aws.CredentialsProvider, error) {
			loads.Add(1)
			return static("same"), nil
		})
		v, err := c.Retrieve(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, c.refresh(t.Context(), v, true), errNothingNewer)
		require.ErrorIs(t, c.refresh(t.Context(), v, true), errNothingNewer)
		require.Equal(t, int32(1), loads.Load())
		time.Sleep(emptyInterval)
		require.ErrorIs(t, c.refresh(t.Context(), v, true), errNothingNewer)
		require.Equal(t, int32(2), loads.Load())
	})
}

func TestDoubtDoesNotReadTheChainAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loads atomic.Int32
		c := newCredentialSource(static("0"), func(context.Context) (aws.CredentialsProvider, error) {
			return static(fmt.Sprint(loads.Add(1))), nil // new ones at every reading
		})
		for range 5 {
			v, err := c.Retrieve(t.Context())
			require.NoError(t, err)
			_ = c.refresh(t.Context(), v, false)
		}
		require.Equal(t, int32(1), loads.Load())
		time.Sleep(doubtInterval)
		v, err := c.Retrieve(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.refresh(t.Context(), v, false))
		require.Equal(t, int32(2), loads.Load())
	})
}

func TestChainThatFailsIsReported(t *testing.T) {
	broken := errors.New("process failed")
	c := newCredentialSource(static("old"), func(context.Context) (aws.CredentialsProvider, error) { return nil, broken })
	v, err := c.Retrieve(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, c.refresh(t.Context(), v, true), broken)
}
