package s3store

import (
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"hash/crc32"
	"io"
	"sync"
)

// A part is buffered in chunks, so that a file of 4 KiB does not take the
// memory of a part and one part's memory serves the next.
const (
	smallChunk  = 64 << 10
	largeChunk  = 1 << 20
	smallChunks = 4 // as many small ones before the first large one
)

// chunkPool hands chunks out and takes them back. Its owner is the Store's
// process: memory that nobody uses goes back to the runtime by itself.
type chunkPool struct{ small, large sync.Pool }

func (p *chunkPool) get(large bool) []byte {
	pool, size := &p.small, smallChunk
	if large {
		pool, size = &p.large, largeChunk
	}
	if b, ok := pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, size)
}

func (p *chunkPool) put(b []byte) {
	if len(b) == largeChunk {
		p.large.Put(&b)
	} else {
		p.small.Put(&b)
	}
}

// partBuffer is the bytes of one part. It is filled by one goroutine and read
// by another one after that.
type partBuffer struct {
	pool   *chunkPool
	chunks [][]byte
	size   int64
	room   int64 // bytes free in the last chunk
	crc    uint32
}

// sumStep is how many bytes are copied before they are summed: so few that they
// are still in the processor's nearest cache.
const sumStep = 16 << 10

// Write appends p.
func (b *partBuffer) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if b.room == 0 {
			c := b.pool.get(len(b.chunks) >= smallChunks)
			b.chunks = append(b.chunks, c)
			b.room = int64(len(c))
		}
		c := b.chunks[len(b.chunks)-1]
		k := copy(c[int64(len(c))-b.room:], p[:min(len(p), sumStep)])
		b.crc = crc32.Update(b.crc, crc32.IEEETable, p[:k])
		b.room -= int64(k)
		b.size += int64(k)
		p = p[k:]
	}
	return n, nil
}

// release gives the memory back; nothing may read the buffer any more.
func (b *partBuffer) release() {
	for _, c := range b.chunks {
		b.pool.put(c)
	}
	*b = partBuffer{pool: b.pool}
}

// md5 returns the MD5 of the bytes. It is computed when it is asked for: where
// the server honours a CRC32 nobody does.
func (b *partBuffer) md5() [md5.Size]byte {
	h := md5.New()
	_, _ = io.Copy(h, b.reader()) // neither side fails
	return [md5.Size]byte(h.Sum(nil))
}

// reader returns the bytes from the beginning.
func (b *partBuffer) reader() *partReader { return &partReader{b: b} }

type partReader struct {
	b   *partBuffer
	pos int64
}

func (r *partReader) Read(p []byte) (int, error) {
	if r.pos >= r.b.size {
		return 0, io.EOF
	}
	n := copy(p, r.next())
	r.pos += int64(n)
	return n, nil
}

// next returns the bytes that follow in the same chunk, none at the end.
func (r *partReader) next() []byte { return r.b.at(r.pos) }

// at returns the bytes from pos to the end of their chunk.
func (b *partBuffer) at(pos int64) []byte {
	var start int64
	for _, c := range b.head(pos, &start) {
		end := min(start+int64(len(c)), b.size)
		if pos < end {
			return c[pos-start : end-start]
		}
		start = end
	}
	return nil
}

// head skips the chunks before pos whose lengths are known.
func (b *partBuffer) head(pos int64, start *int64) [][]byte {
	const small = smallChunks * smallChunk
	if pos < small {
		return b.chunks
	}
	i := (pos - small) / largeChunk
	*start = small + i*largeChunk
	return b.chunks[smallChunks+i:]
}

// md5Text is the MD5 as Content-MD5 has it.
func (b *partBuffer) md5Text() string {
	sum := b.md5()
	return base64.StdEncoding.EncodeToString(sum[:])
}

// etag is the ETag of an object of these bytes, where ETags are MD5s.
func (b *partBuffer) etag() string {
	sum := b.md5()
	return hex.EncodeToString(sum[:])
}
