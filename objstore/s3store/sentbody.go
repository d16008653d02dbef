package s3store

import (
	"net/http"
	"sync"
)

// sentBody is the body of a request until the exchange is over. The transport
// may go on reading after that, from a buffer that somebody else has by then:
// after Close nothing of it is read any more.
type sentBody struct {
	mu   sync.Mutex
	idle sync.Cond   // signalled when to becomes nil
	r    *partReader // nil when it is over
	to   *conn       // that a piece is being sent to, straight from the buffer
}

func newSentBody(r *partReader) *sentBody {
	b := &sentBody{r: r}
	b.idle.L = &b.mu
	return b
}

func (b *sentBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.r.Read(p)
}

// sendTo sends at most n bytes to c, and returns how many those were.
func (b *sentBody) sendTo(c *conn, n int64) (sent int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for sent < n && err == nil {
		r := b.r
		if r == nil {
			return sent, http.ErrBodyReadAfterClose
		}
		p := r.next()
		if len(p) == 0 {
			break
		}
		b.to = c
		b.mu.Unlock()
		var m int
		m, err = c.Write(p[:min(int64(len(p)), n-sent)])
		b.mu.Lock()
		b.to = nil
		b.idle.Signal()
		r.pos += int64(m)
		sent += int64(m)
	}
	return sent, err
}

// Close ends the body. A piece that is being sent is broken off, and with it the
// connection, whose server has answered without waiting for the rest.
func (b *sentBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
	for b.to != nil {
		_ = b.to.Close() // which the transport has to do as well
		b.idle.Wait()
	}
	return nil
}
