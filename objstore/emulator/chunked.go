package emulator

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxChunkLine bounds a chunk's header line and a trailer's line in bytes;
// maxChunk bounds a chunk, far above what any SDK sends.
const (
	maxChunkLine = 4 << 10
	maxChunk     = 1 << 30
)

// chunkedReader decodes the aws-chunked content coding:
//
//	HEX[;chunk-signature=SIG] CRLF data CRLF ... 0[;chunk-signature=SIG] CRLF
//	[name:value LF]... [CRLF x-amz-trailer-signature:SIG CRLF] CRLF
//
// With a signature, the signature of each chunk covers that of the one before.
// Bytes are handed on before their chunk's signature is seen; an error at the
// chunk's end must undo what was done with them.
type chunkedReader struct {
	r       *bufio.Reader
	sig     *signature // nil when chunks are not signed
	trailer http.Header
	// wantTrailer: trailing headers may follow the last chunk.
	wantTrailer bool

	left      int64 // of the current chunk
	chunkSig  string
	hash      hash.Hash
	previous  string
	inChunk   bool
	err       error
	sum       [sha256.Size]byte
	trailSeen []string // trailer lines in order, as they are signed
}

func newChunkedReader(r io.Reader, sig *signature, wantTrailer bool) *chunkedReader {
	c := &chunkedReader{r: bufio.NewReaderSize(r, 64<<10), sig: sig, wantTrailer: wantTrailer, trailer: http.Header{}}
	if sig != nil {
		c.hash = sha256.New()
		c.previous = sig.value
	}
	return c
}

func errChunk(what string) *apiError {
	return fail("InvalidRequest", "The aws-chunked body is malformed: %s.", what)
}

func (c *chunkedReader) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		if c.err = c.nextChunk(); c.err != nil {
			return 0, c.err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if c.hash != nil {
		c.hash.Write(p[:n])
	}
	if err != nil {
		c.err = truncated(err)
		return n, c.err
	}
	return n, nil
}

// truncated makes an early end recognizable as one.
func truncated(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// nextChunk ends the current chunk and reads the header of the next; io.EOF
// after the last one and the trailer.
func (c *chunkedReader) nextChunk() error {
	if c.inChunk {
		if line, err := c.line(); err != nil {
			return err
		} else if line != "" {
			return errChunk("a chunk is longer than announced")
		}
		if err := c.checkChunk(); err != nil {
			return err
		}
	}
	line, err := c.line()
	if err != nil {
		return err
	}
	sizeText, ext, _ := strings.Cut(line, ";")
	size, err := strconv.ParseInt(sizeText, 16, 64)
	if err != nil || size < 0 || size > maxChunk {
		return errChunk("bad chunk size")
	}
	c.chunkSig, c.left, c.inChunk = "", size, true
	if v, ok := strings.CutPrefix(ext, "chunk-signature="); ok {
		c.chunkSig = v
	}
	if size > 0 {
		return nil
	}
	if err := c.checkChunk(); err != nil {
		return err
	}
	if err := c.readTrailer(); err != nil {
		return err
	}
	return io.EOF
}

func (c *chunkedReader) checkChunk() error {
	if c.sig == nil {
		return nil
	}
	const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	text := "AWS4-HMAC-SHA256-PAYLOAD\n" + c.sig.date + "\n" + c.sig.scope + "\n" + c.previous + "\n" +
		emptyHash + "\n" + hex.EncodeToString(c.hash.Sum(c.sum[:0]))
	c.hash.Reset()
	return c.compare(text, c.chunkSig)
}

func (c *chunkedReader) compare(text, got string) error {
	want := hexHMAC(c.sig.key, text)
	if !hmac.Equal([]byte(want), []byte(got)) {
		return fail("SignatureDoesNotMatch", "The chunk or trailer signature we calculated does not match the signature you provided.")
	}
	c.previous = want
	return nil
}

// readTrailer reads the lines after the last chunk up to an empty one or the
// end of the body: some clients leave out the empty one. A signed trailer has
// one more empty line, between the headers and their signature.
func (c *chunkedReader) readTrailer() error {
	signature := ""
	signed := c.sig != nil && c.wantTrailer
	for gap := false; ; {
		line, err := c.line()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
		if line == "" {
			if signed && signature == "" && !gap {
				gap = true
				continue
			}
			break
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok || !c.wantTrailer {
			return errChunk("unexpected trailer")
		}
		if name == "x-amz-trailer-signature" {
			signature = value
			continue
		}
		c.trailer.Set(name, value)
		c.trailSeen = append(c.trailSeen, name+":"+value+"\n")
	}
	if !signed {
		return nil
	}
	sum := sha256.Sum256([]byte(strings.Join(c.trailSeen, "")))
	text := "AWS4-HMAC-SHA256-TRAILER\n" + c.sig.date + "\n" + c.sig.scope + "\n" + c.previous + "\n" + hex.EncodeToString(sum[:])
	return c.compare(text, signature)
}

// line reads a line without its CRLF.
func (c *chunkedReader) line() (string, error) {
	var line []byte
	for {
		part, err := c.r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxChunkLine {
			return "", errChunk("a line is too long")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", truncated(err)
		}
		return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
	}
}
