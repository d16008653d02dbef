package emulator

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// countingBody counts the bytes of a request's body as they come.
type countingBody struct {
	io.ReadCloser
	n int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

// reply is the ResponseWriter of a call: it counts, and does to the body what
// a fault says.
type reply struct {
	http.ResponseWriter
	fault  Fault
	stall  func() // waits until the client or the server gives up
	record func() // puts the request into the log, once
	status int
	n      int64
	// announced is the body's length by Content-Length, 0 for a HEAD.
	announced int64
	finished  bool
	head      bool
	// middle is the offset of the body's byte at which faults strike, -1 while
	// it is not known.
	middle int64
}

func (w *reply) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	w.status = status
	if w.fault.HideSSE {
		for name := range w.Header() {
			if strings.HasPrefix(name, "X-Amz-Server-Side-Encryption") {
				w.Header().Del(name)
			}
		}
	}
	w.middle = 0
	if size, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64); err == nil {
		w.middle = size / 2
		if !w.head {
			w.announced = size
		}
	}
	w.record()
	if !w.fault.LoseReply {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *reply) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.fault.LoseReply:
		return len(p), nil
	case w.fault.TruncateBody || w.fault.StallBody:
		return w.writeHalf(p)
	case w.fault.FlipBit && w.n <= w.middle && w.middle < w.n+int64(len(p)):
		// The bytes belong to the caller: flip in a copy.
		damaged := append([]byte(nil), p...)
		damaged[w.middle-w.n] ^= 1
		p = damaged
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// expected is the number of the body's bytes that went out, or that will when
// all goes well.
func (w *reply) expected() int64 {
	if w.finished {
		return w.n
	}
	return w.announced
}

// writeHalf writes up to the middle of the body and goes no further.
func (w *reply) writeHalf(p []byte) (int, error) {
	if left := w.middle - w.n; int64(len(p)) > left {
		n, _ := w.ResponseWriter.Write(p[:left])
		w.n += int64(n)
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		if w.fault.StallBody {
			w.stall()
		}
		panic(http.ErrAbortHandler)
	}
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// ReadFrom lets a file go to the connection by sendfile where nothing has to
// be done to its bytes.
func (w *reply) ReadFrom(r io.Reader) (int64, error) {
	rf, ok := w.ResponseWriter.(io.ReaderFrom)
	if !ok || w.fault.LoseReply || w.fault.TruncateBody || w.fault.StallBody || w.fault.FlipBit {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	n, err := rf.ReadFrom(r)
	w.n += n
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// cut ends the connection without an answer, by a TCP RST when reset is set.
// It does not return.
func cut(w http.ResponseWriter, reset bool) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if secure, ok := conn.(*tls.Conn); ok {
			// Below TLS: its own end would be an orderly one.
			conn = secure.NetConn()
		}
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
	panic(http.ErrAbortHandler)
}
