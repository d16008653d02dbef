package s3store

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bufferOf returns a part of these bytes.
func bufferOf(data []byte) *partBuffer {
	b := &partBuffer{pool: &chunkPool{}}
	_, _ = b.Write(data)
	return b
}

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	peer, err := l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { peer.Close() })
	return &conn{c}, peer
}

// TestBodyIsNotReadAfterTheReply: a server may answer before it has read all,
// and the transport goes on reading; by then somebody else has the buffer.
func TestBodyIsNotReadAfterTheReply(t *testing.T) {
	b := newSentBody(bufferOf([]byte("secret of the next file")).reader())
	n, err := b.Read(make([]byte, 6))
	require.NoError(t, err)
	require.Equal(t, 6, n)
	require.NoError(t, b.Close())
	n, err = b.Read(make([]byte, 6))
	require.Error(t, err)
	require.Zero(t, n)
	c, peer := tcpPair(t)
	sent, err := b.sendTo(c, 6)
	require.Error(t, err)
	require.Zero(t, sent)
	c.Close()
	got, err := io.ReadAll(peer)
	require.NoError(t, err)
	require.Empty(t, got)
}

// TestBodyIsSentFromItsBuffer: as net/http asks for it, limited to the length
// that was announced.
func TestBodyIsSentFromItsBuffer(t *testing.T) {
	for _, size := range []int{0, 1, smallChunk, smallChunks*smallChunk + 1, 3<<20 + 7} {
		for _, n := range []int{size, size / 2, size + 5} {
			data := random(size)
			c, peer := tcpPair(t)
			limited := &io.LimitedReader{R: newSentBody(bufferOf(data).reader()), N: int64(n)}
			done := make(chan []byte, 1)
			go func() {
				got, _ := io.ReadAll(peer)
				done <- got
			}()
			sent, err := c.ReadFrom(limited)
			require.NoError(t, err)
			require.EqualValues(t, min(n, size), sent)
			require.EqualValues(t, int64(n)-sent, limited.N)
			c.Close()
			require.True(t, bytes.Equal(data[:sent], <-done))
		}
	}
}

// TestEndedBodyBreaksItsSendingOff: the buffer is another file's when Close has
// returned, and a server that has answered may never take the rest.
func TestEndedBodyBreaksItsSendingOff(t *testing.T) {
	c, peer := tcpPair(t)
	data := random(64 << 20) // more than the kernel keeps for both ends
	b := newSentBody(bufferOf(data).reader())
	done := make(chan error, 1)
	go func() {
		_, err := c.ReadFrom(&io.LimitedReader{R: b, N: int64(len(data))})
		done <- err
	}()
	_, err := io.ReadFull(peer, make([]byte, 1<<20)) // it is being sent
	require.NoError(t, err)
	for last := int64(-1); ; { // until the kernel takes no more
		b.mu.Lock()
		pos, sending := b.r.pos, b.to != nil
		b.mu.Unlock()
		if sending && pos == last {
			break
		}
		last = pos
		time.Sleep(100 * time.Millisecond)
	}
	begun := time.Now()
	require.NoError(t, b.Close())
	require.Error(t, <-done)
	require.Less(t, time.Since(begun), writeStall/2)
}
