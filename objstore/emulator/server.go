package emulator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Server is a running emulator. Safe for concurrent use.
type Server struct {
	cfg     Config
	dialect dialect
	creds   credentials
	vault   *vault
	kms     *keyService
	clock   *clock
	lock    *os.File
	routes  []route
	faults  faultRules
	log     requestLog
	skew    atomic.Int64 // nanoseconds, see SetSkew

	// making lets one CreateBucket run at a time.
	making sync.Mutex

	mu      sync.RWMutex
	buckets map[string]*bucket
	traits  map[string]Traits
	closed  bool
	http    *http.Server
	address string

	// done is closed by Close; active counts requests and the listener.
	done   chan struct{}
	active sync.WaitGroup
}

// New opens the state in cfg.Dir, or creates it. The caller closes the server.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if abs, err := filepath.Abs(cfg.Dir); err == nil {
		// CAFile is for processes that may run elsewhere.
		cfg.Dir = abs
	}
	d, err := dialectByName(cfg.Dialect)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, dialect: d, routes: routes(), buckets: map[string]*bucket{}, traits: map[string]Traits{}, done: make(chan struct{}),
		creds: credentials{cfg.AccessKeyID, cfg.SecretAccessKey, cfg.Region},
		clock: &clock{now: time.Now}, log: requestLog{max: cfg.LogSize},
	}
	if err := s.open(); err != nil {
		if s.lock != nil {
			s.lock.Close()
		}
		return nil, fmt.Errorf("emulator: open %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func (s *Server) open() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(s.cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another server uses it: %w", err)
	}
	if s.vault, err = openVault(s.cfg.Dir, s.cfg.Fsync); err != nil {
		return err
	}
	if s.kms, err = openKeyService(s.vault, s.cfg.Region, s.clock.now); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, "buckets"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := openBucket(s.vault, s.clock, e.Name())
		if err != nil {
			return fmt.Errorf("bucket %s: %w", e.Name(), err)
		}
		s.buckets[b.name] = b
	}
	return nil
}

// Listen serves on addr in the background. Only loopback addresses are taken;
// port 0 picks a free one.
func (s *Server) Listen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("emulator: listen: %w", err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("emulator: listen: %q is not a loopback address", host)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	if s.cfg.TLS {
		cert, err := s.certificate()
		if err != nil {
			l.Close()
			return fmt.Errorf("emulator: certificate: %w", err)
		}
		// HTTP/1.1 only, as on MinIO: faults cut connections, which HTTP/2
		// shares among requests.
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.http != nil {
		l.Close()
		return errors.New("emulator: the server is closed or listens already")
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: time.Minute,
		IdleTimeout:       s.cfg.IdleTimeout,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	s.address = l.Addr().String()
	s.active.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.cfg.Logger.Error("emulator stopped serving", "err", err)
		}
	})
	return nil
}

// Endpoint returns the server's URL, "" before Listen.
func (s *Server) Endpoint() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.address == "" {
		return ""
	}
	if s.cfg.TLS {
		return "https://" + s.address
	}
	return "http://" + s.address
}

// Env returns the environment variables, as NAME=VALUE, that point the AWS
// SDKs and the AWS CLI at this server.
func (s *Server) Env() []string {
	env := []string{
		"AWS_ENDPOINT_URL=" + s.Endpoint(),
		"AWS_ACCESS_KEY_ID=" + s.cfg.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY=" + s.cfg.SecretAccessKey,
		"AWS_REGION=" + s.cfg.Region,
		"AWS_ENDPOINT_URL_KMS=" + s.Endpoint(),
	}
	if s.cfg.TLS {
		env = append(env, "AWS_CA_BUNDLE="+s.CAFile())
	}
	return env
}

// Close stops serving, cuts what is under way and waits for it. The state in
// Dir stays.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	srv := s.http
	s.mu.Unlock()
	var err error
	if srv != nil {
		err = srv.Close()
	}
	s.active.Wait()
	return errors.Join(err, s.lock.Close())
}

// Inject adds fault rules. It panics on a rule that is not valid: tests are
// the callers.
func (s *Server) Inject(faults ...Fault) {
	for _, f := range faults {
		if err := f.Validate(); err != nil {
			panic(err)
		}
	}
	s.faults.add(faults)
}

// ClearFaults removes all fault rules.
func (s *Server) ClearFaults() { s.faults.clear() }

// Strikes returns how many requests fault rules have struck since the last
// ClearFaults, those included that are still being delayed or stalled.
func (s *Server) Strikes() int { return s.faults.struck() }

// SetSkew puts the clock by which signatures are checked and the Date of
// replies is written ahead of the real time, or behind when d is negative:
// beyond 15 minutes requests are refused with RequestTimeTooSkewed.
func (s *Server) SetSkew(d time.Duration) { s.skew.Store(int64(d)) }

func (s *Server) signatureTime() time.Time {
	return s.clock.now().Add(time.Duration(s.skew.Load()))
}

// Requests returns the requests since the last reset whose answer has begun,
// oldest first, at most Config.LogSize. The caller owns the slice; the headers
// are shared and must not be changed.
func (s *Server) Requests() []Request { return s.log.all() }

// ResetRequests forgets the requests so far.
func (s *Server) ResetRequests() { s.log.reset() }

// begin counts a request unless the server is closed.
func (s *Server) begin() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return false
	}
	s.active.Add(1)
	return true
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		panic(http.ErrAbortHandler)
	}
	defer s.active.Done()
	// A copy: net/http looks at the type of its own request's body to see
	// whether a client still waits for 100 Continue.
	r = r.WithContext(r.Context())
	body := &countingBody{ReadCloser: r.Body}
	r.Body = body
	w := &reply{ResponseWriter: rw, middle: -1, head: r.Method == http.MethodHead}
	w.stall = func() { s.stall(r.Context(), r) }
	c := &call{w: w, r: r, id: strings.ToUpper(newID()[:16])}
	entry := &Request{Time: time.Now(), Method: r.Method, RawQuery: redactQuery(r.URL.RawQuery), Header: redactHeader(r.Header)}
	fill := func() {
		entry.Verb, entry.Bucket, entry.Key, entry.Code = c.verb, c.name, c.key, c.code
		entry.Processed, entry.Status, entry.BodyBytes, entry.RespBytes = w.status, w.status, body.n, w.expected()
		if w.fault.LoseReply || w.fault.Reset || w.fault.Stall {
			entry.Status, entry.RespBytes = 0, 0
		}
	}
	// The request is in the log before its answer is on the wire: a client
	// that has the answer finds the request there.
	w.record = sync.OnceFunc(func() { s.log.add(entry, fill) })
	defer func() {
		w.finished = true
		w.record()
		s.log.change(fill)
	}()
	s.serve(c, w)
}

// serve finds the verb, lets faults strike, and runs the handler.
func (s *Server) serve(c *call, w *reply) {
	h := w.Header()
	h.Set("x-amz-request-id", c.id)
	h.Set("Server", "coffer-emulator")
	h.Set("Date", s.signatureTime().UTC().Format(http.TimeFormat))
	rt, err := s.route(c)
	w.fault = s.faults.strike(c.verb, c.name, c.key)
	c.fault = w.fault
	if w.fault.Reset {
		w.record()
		cut(w.ResponseWriter, true)
	}
	s.delay(c, w.fault)
	if w.fault.Stall {
		w.record()
		s.stall(c.r.Context(), c.r)
		panic(http.ErrAbortHandler)
	}
	if e := w.fault.failure(); e != nil {
		if w.fault.ErrorIn200 {
			e.Status = http.StatusOK
		}
		err = e
	}
	if err == nil {
		err = s.handle(c, rt)
	}
	if err != nil {
		s.refuse(c, w, err)
	}
	if w.fault.LoseReply {
		cut(w.ResponseWriter, false)
	}
}

// delay waits as long as a fault says, or until the client or the server gives
// up.
func (s *Server) delay(c *call, f Fault) {
	if f.Delay <= 0 {
		return
	}
	select {
	case <-time.After(f.Delay):
	case <-c.r.Context().Done():
	case <-s.done:
	}
}

// route fills in c from the request's line.
func (s *Server) route(c *call) (*route, error) {
	if isKMS(c.r) {
		c.verb = kmsVerb + strings.TrimPrefix(c.r.Header.Get("X-Amz-Target"), kmsTarget)
		c.query = c.r.URL.Query()
		c.kms = true
		return nil, nil
	}
	var lv level
	c.name, c.key, lv = target(c.r.Host, c.r.URL.Path)
	var err error
	if c.query, err = parseQuery(c.r.URL.RawQuery); err != nil {
		return nil, err
	}
	rt := s.dialect.match(s.routes, c.r.Method, lv, c.query, c.r.Header)
	if rt == nil {
		c.verb = "Unknown"
		return nil, nil
	}
	c.verb = rt.verb
	return rt, nil
}

// handle authenticates, finds the bucket and runs the verb.
func (s *Server) handle(c *call, rt *route) error {
	if c.kms {
		return s.handleKMS(c)
	}
	var err error
	if c.sig, err = s.authenticate(c); err != nil {
		return err
	}
	if rt == nil {
		return errNotImplemented()
	}
	if err := s.dialect.screen(c.verb, c.sig.payload, c.r.Header); err != nil {
		return err
	}
	if rt.level == onObject {
		if err := s.dialect.checkKey(c.key); err != nil {
			return err
		}
	}
	if rt.level != onService && rt.verb != "CreateBucket" {
		if c.bucket = s.bucketNamed(c.name); c.bucket == nil {
			return errNoSuchBucket(c.name)
		}
		if err := s.admit(c, c.name); err != nil {
			return err
		}
	}
	return rt.handle(s, c)
}

func (s *Server) bucketNamed(name string) *bucket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.buckets[name]
}

// maxDrain is how much of a refused request's body is read so that the client
// sees the answer rather than a broken connection.
const maxDrain = 64 << 20

// drainTime is how long a client that announced a body by Expect is listened
// to after it was refused: one that waited has nothing to send.
const drainTime = time.Second

// refuse answers with err, or cuts the connection where an answer has begun.
func (s *Server) refuse(c *call, w *reply, err error) {
	var e *apiError
	switch {
	case errors.As(err, &e):
	case errors.Is(err, io.ErrUnexpectedEOF), isNetError(err):
		e = fail("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header")
	case errors.Is(err, fs.ErrNotExist) && c.bucket != nil && s.bucketNamed(c.name) != c.bucket:
		e = errNoSuchBucket(c.name)
	case errors.Is(err, syscall.ENOSPC):
		e = &apiError{Code: "InsufficientStorage", Status: http.StatusInsufficientStorage, Message: "No space left in the server's directory."}
	default:
		s.cfg.Logger.Error("emulator: request failed", "verb", c.verb, "bucket", c.name, "key", c.key, "err", err)
		e = fail("InternalError", "We encountered an internal error. Please try again.")
	}
	if w.status != 0 {
		c.code = e.Code
		panic(http.ErrAbortHandler)
	}
	if c.kms {
		_, _ = io.CopyN(io.Discard, c.r.Body, maxDrain)
		if e.Code == "InternalError" {
			e = fail("KMSInternalException", "%s", e.Message)
		}
		c.sendKMSError(e)
		return
	}
	w.Header().Set("x-amz-bucket-region", s.regionOf(c.name))
	if c.r.Header.Get("Expect") == "" {
		_, _ = io.CopyN(io.Discard, c.r.Body, maxDrain)
		c.sendError(e)
		return
	}
	// To read before the answer would ask a waiting client for the body; one
	// that did not wait would lose the answer if its body were left unread.
	c.sendError(e)
	rc := http.NewResponseController(w)
	if rc.Flush() == nil && rc.SetReadDeadline(time.Now().Add(drainTime)) == nil {
		_, _ = io.CopyN(io.Discard, c.r.Body, maxDrain)
	}
}

func isNetError(err error) bool {
	var ne net.Error
	return errors.As(err, &ne)
}

// stall waits until the client or the server gives up.
func (s *Server) stall(ctx context.Context, r *http.Request) {
	// net/http notices a client's end only after the body is read.
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-ctx.Done():
	case <-s.done:
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

// asAPIError is err in S3's form; what it does not know is an InternalError.
func asAPIError(err error) *apiError {
	var e *apiError
	if errors.As(err, &e) {
		return e
	}
	return fail("InternalError", "We encountered an internal error. Please try again.")
}
