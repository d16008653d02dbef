package storetest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"coffer/objstore"
)

// Sealed stands before a server and keeps all that client-side encryption sends it, also
// in requests that fail, are cut or repeated, and in uploads that nobody completes. Check
// tells whether some key has sealed two things under one IV, which is the end of what
// AES-GCM promises: the key of a message follows from its data key and its ID, so these
// are frames, or headers, of one message ID and one IV that are not the same bytes.
//
// It reads the bytes by the layout that cse/FORMAT.md states, and shares no code with
// what wrote them.
type Sealed struct {
	next http.Handler
	cut  atomic.Int32

	mu      sync.Mutex
	uploads map[string]map[int][]sent // by upload and number: a part, as often as it came
	puts    []sent
}

// sent is a body, or as much of it as came.
type sent struct {
	sequence string // the upload, or the object that is put whole
	key      string
	length   int64 // as announced
	bytes    []byte
}

// NewSealed returns a handler of the requests to next.
func NewSealed(next http.Handler) *Sealed {
	return &Sealed{next: next, uploads: map[string]map[int][]sent{}}
}

// Cut has the connections of the next n bodies cut in their middle.
func (s *Sealed) Cut(n int) { s.cut.Store(int32(n)) }

// ServeHTTP implements http.Handler.
func (s *Sealed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	object := strings.Count(strings.Trim(r.URL.Path, "/"), "/") > 0 // path style
	upload, part := q.Get("uploadId"), q.Get("partNumber")
	scratch := strings.HasPrefix(path.Base(r.URL.Path), objstore.ScratchPrefix) // is the store's own
	data := object && !scratch && r.Method == http.MethodPut && r.ContentLength > 0 && (upload != "") == (part != "") && !q.Has("tagging") && !q.Has("acl")
	if !data {
		s.next.ServeHTTP(w, r)
		return
	}
	in := io.Reader(r.Body)
	cut := s.cut.Add(-1) >= 0
	if cut {
		in = io.LimitReader(in, r.ContentLength/2)
	}
	body, err := io.ReadAll(in)
	b := sent{sequence: upload, key: r.URL.Path, length: r.ContentLength, bytes: body}
	s.mu.Lock()
	if number, nerr := strconv.Atoi(part); nerr == nil {
		if s.uploads[upload] == nil {
			s.uploads[upload] = map[int][]sent{}
		}
		s.uploads[upload][number] = append(s.uploads[upload][number], b)
	} else {
		b.sequence = "PUT " + r.URL.Path
		s.puts = append(s.puts, b)
	}
	s.mu.Unlock()
	if cut || err != nil {
		reset(w)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.next.ServeHTTP(w, r)
}

// reset cuts the connection and does not return.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// SealedCount is what Check has looked at.
type SealedCount struct {
	Messages int
	Frames   int   // and headers, each counted once
	Again    int64 // bytes that came more than once
}

// Check compares everything that came so far.
func (s *Sealed) Check() (SealedCount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages := map[string]*sealedMessage{}
	for _, b := range s.puts {
		if err := collect(messages, []placed{{0, b}}); err != nil {
			return SealedCount{}, err
		}
	}
	for _, parts := range s.uploads {
		stream, err := place(parts)
		if err == nil {
			err = collect(messages, stream)
		}
		if err != nil {
			return SealedCount{}, err
		}
	}
	var n SealedCount
	for id, m := range messages {
		if err := m.check(&n); err != nil {
			return n, fmt.Errorf("message %x: %w", id, err)
		}
	}
	n.Messages = len(messages)
	return n, nil
}

// placed is a body and where in its message it begins.
type placed struct {
	off int64
	sent
}

// place puts the parts of an upload in order. One that never came is as long as the
// first.
func place(parts map[int][]sent) (stream []placed, err error) {
	last := 0
	for number := range parts {
		last = max(last, number)
	}
	var off, usual int64
	for number := 1; number <= last; number++ {
		length := usual
		for i, b := range parts[number] {
			if i > 0 && b.length != length {
				return nil, fmt.Errorf("%s: part %d was sent with %d bytes, and with %d", b.key, number, length, b.length)
			}
			length = b.length
			stream = append(stream, placed{off, b})
		}
		if number == 1 {
			usual = length
		}
		off += length
	}
	return stream, nil
}

// sealedMessage is all that came of one message.
type sealedMessage struct {
	sequence      string
	header, frame int64 // bytes; 0 while nobody knows
	runs          []placed
}

// collect adds a stream of bodies to its message.
func collect(messages map[string]*sealedMessage, stream []placed) error {
	id, header, frame := "", int64(0), int64(0)
	for _, p := range stream {
		if p.off > 0 || len(p.bytes) == 0 {
			continue
		}
		if len(p.bytes) < 35 && int64(len(p.bytes)) < p.length {
			continue // cut too early to tell
		}
		if !bytes.HasPrefix(p.bytes, []byte{2, 4, 0x78}) || len(p.bytes) < 35 {
			return fmt.Errorf("%s: what was sent is no message: %.20q", p.key, p.bytes)
		}
		if id != "" && id != string(p.bytes[3:35]) {
			// A whole PUT is one body; an upload has one first part.
			return fmt.Errorf("%s: the first part was sent with two message IDs", p.key)
		}
		id = string(p.bytes[3:35])
		if h, f, ok := parseSealedHeader(p.bytes); ok {
			header, frame = h, f
		}
	}
	if id == "" {
		return nil // nothing of it came, or not its begin
	}
	m := messages[id]
	if m == nil {
		m = &sealedMessage{sequence: stream[0].sequence}
		messages[id] = m
	}
	if m.sequence != stream[0].sequence {
		return fmt.Errorf("message %x is in %s and in %s", id, m.sequence, stream[0].sequence)
	}
	m.header, m.frame = max(m.header, header), max(m.frame, frame)
	m.runs = append(m.runs, stream...)
	return nil
}

// parseSealedHeader returns how long the header and the frames are, where all of it is
// there.
func parseSealedHeader(p []byte) (header, frame int64, ok bool) {
	at := 35
	field := func() int {
		if at+2 > len(p) {
			at = len(p)
			return 0
		}
		n := int(binary.BigEndian.Uint16(p[at:]))
		at += 2
		return n
	}
	at += field() // the encryption context
	for range 3 * field() {
		at += field() // provider, info and ciphertext of each data key
	}
	const rest = 1 + 4 + 32 + 16
	if at+rest > len(p) {
		return 0, 0, false
	}
	return int64(at + rest), int64(binary.BigEndian.Uint32(p[at+1:])), true
}

// check compares what overlaps, and looks whether every frame is in its place: then
// frames with one IV lie over each other.
func (m *sealedMessage) check(n *SealedCount) error {
	slices.SortStableFunc(m.runs, func(a, b placed) int { return int(a.off - b.off) })
	seen := map[uint32]bool{}
	for i, a := range m.runs {
		if err := m.layout(a, seen); err != nil {
			return err
		}
		end := a.off + int64(len(a.bytes))
		for _, b := range m.runs[i+1:] {
			if b.off >= end {
				break
			}
			both := min(end-b.off, int64(len(b.bytes)))
			if x, y := a.bytes[b.off-a.off:][:both], b.bytes[:both]; !bytes.Equal(x, y) {
				at := 0
				for x[at] == y[at] {
					at++
				}
				return fmt.Errorf("%s: sealed twice: the bytes at %d are two things", a.key, b.off+int64(at))
			}
			n.Again += both
		}
	}
	n.Frames += len(seen)
	return nil
}

// layout notes the IVs of a run.
func (m *sealedMessage) layout(p placed, seen map[uint32]bool) error {
	if m.header == 0 {
		return nil // only a piece of the header came
	}
	if p.off == 0 && int64(len(p.bytes)) >= m.header {
		seen[0] = true
	}
	sealed := m.frame + 32
	for i := max(0, (p.off-m.header+sealed-1)/sealed); ; i++ {
		at := m.header + i*sealed - p.off
		if at < 0 {
			continue // the division rounds towards zero
		}
		if at+24 > int64(len(p.bytes)) {
			return nil
		}
		head := p.bytes[at:]
		final := binary.BigEndian.Uint32(head) == 1<<32-1
		if final {
			head = head[4:]
		}
		seq := uint32(i + 1)
		if want := binary.BigEndian.AppendUint32(append(binary.BigEndian.AppendUint32(nil, seq), make([]byte, 8)...), seq); !bytes.HasPrefix(head, want) {
			return fmt.Errorf("%s: at %d there is no frame %d with its IV", p.key, p.off+at, seq)
		}
		seen[seq] = true
		if final {
			return nil
		}
	}
}
