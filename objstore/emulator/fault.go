package emulator

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"sync"
	"time"
)

// Fault is a rule that damages requests. The first fields choose the requests,
// the others say what happens to them; several effects may be combined. All
// zero selectors match everything.
type Fault struct {
	// Verb is the operation's name, such as "GetObject" or "UploadPart". Those
	// of the key service begin with "kms:"; "kms:GenerateDataKey" and
	// "kms:Decrypt" strike S3's own calls too, made for an object under SSE-KMS
	// that is written or read: there Bucket and KeyPattern are the object's and
	// only Delay, Status and Code have an effect.
	Verb string
	// Bucket is the bucket's name.
	Bucket string
	// KeyPattern is matched against the whole key by [path.Match]; note that
	// a star does not match a slash.
	KeyPattern string
	// Nth selects only the nth request, counted from 1, of those that match
	// the fields above; 0 selects each.
	Nth int
	// Count ends the rule after so many faults; 0 is no end.
	Count int
	// Probability, when above 0, selects a request with this chance, by a
	// random sequence that Seed determines.
	Probability float64
	Seed        uint64

	// Delay is waited before anything else is done.
	Delay time.Duration
	// Status answers with this error instead of processing the request. Code
	// is S3's code; "" is InternalError for 500, SlowDown for 503, and the
	// status text otherwise. A Code alone implies its status.
	Status int
	Code   string
	// Reset closes the connection by a TCP RST before the body is read.
	Reset bool
	// Stall takes the request and its body and answers nothing until the
	// client gives up or the server is closed.
	Stall bool
	// LoseReply processes the request and then cuts the connection.
	LoseReply bool
	// TruncateBody announces the whole reply body, sends the first half and
	// cuts the connection.
	TruncateBody bool
	// StallBody sends the first half of the reply body and then nothing until
	// the client gives up or the server is closed.
	StallBody bool
	// FlipBit inverts one bit in the middle of the reply body.
	FlipBit bool
	// ErrorIn200 sends the error of Status or Code as the body of a reply of
	// 200, as Amazon S3 does with what fails late in a copy or a Complete.
	ErrorIn200 bool
	// HideSSE takes every encryption header out of the reply.
	HideSSE bool
	// DropSSE stores the object that a PutObject, CopyObject or
	// CreateMultipartUpload makes as plaintext, whatever was asked for.
	DropSSE bool
}

// Validate reports a rule that can never do what it says.
func (f Fault) Validate() error {
	if _, err := path.Match(f.KeyPattern, ""); err != nil {
		return fmt.Errorf("emulator: fault: KeyPattern %q: %w", f.KeyPattern, err)
	}
	if f.Nth < 0 || f.Count < 0 || f.Delay < 0 || f.Probability < 0 || f.Probability > 1 {
		return fmt.Errorf("emulator: fault: Nth, Count, Delay and Probability are not negative, and the last at most 1: %+v", f)
	}
	if f.Status != 0 && (f.Status < 400 || f.Status > 599) {
		return fmt.Errorf("emulator: fault: status %d is no error", f.Status)
	}
	if f.Code != "" && f.Status == 0 && statusOf[f.Code] == 0 {
		return fmt.Errorf("emulator: fault: code %q needs a Status", f.Code)
	}
	if f.ErrorIn200 && f.Status == 0 && f.Code == "" {
		return fmt.Errorf("emulator: fault: ErrorIn200 needs a Status or a Code")
	}
	return nil
}

// failure is the answer of a fault with Status or Code, nil without.
func (f Fault) failure() *apiError {
	if f.Status == 0 && f.Code == "" {
		return nil
	}
	e := &apiError{Status: f.Status, Code: f.Code, Message: "Injected fault."}
	if e.Status == 0 {
		e.Status = statusOf[f.Code]
	}
	if e.Code == "" {
		switch f.Status {
		case http.StatusInternalServerError:
			e.Code = "InternalError"
		case http.StatusServiceUnavailable:
			e.Code = "SlowDown"
		default:
			e.Code = http.StatusText(f.Status)
		}
	}
	return e
}

// rule is a Fault with what it has seen. Pure: no clock, no I/O.
type rule struct {
	Fault
	rng           *rand.Rand
	seen, applied int
}

func newRule(f Fault) *rule {
	return &rule{Fault: f, rng: rand.New(rand.NewPCG(f.Seed, 0))}
}

// hit counts a request and tells whether the fault strikes it.
func (r *rule) hit(verb, bucket, key string) bool {
	if r.Verb != "" && r.Verb != verb || r.Bucket != "" && r.Bucket != bucket {
		return false
	}
	if r.KeyPattern != "" {
		if ok, err := path.Match(r.KeyPattern, key); err != nil || !ok {
			return false
		}
	}
	r.seen++
	if r.Nth > 0 && r.seen != r.Nth || r.Count > 0 && r.applied >= r.Count {
		return false
	}
	if r.Probability > 0 && r.rng.Float64() >= r.Probability {
		return false
	}
	r.applied++
	return true
}

// faultRules is a set of rules in use. Safe for concurrent use.
type faultRules struct {
	mu      sync.Mutex
	rules   []*rule
	strikes int
}

func (fr *faultRules) add(faults []Fault) {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	for _, f := range faults {
		fr.rules = append(fr.rules, newRule(f))
	}
}

func (fr *faultRules) clear() {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	fr.rules, fr.strikes = nil, 0
}

func (fr *faultRules) struck() int {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	return fr.strikes
}

// strike returns what happens to a request: the effects of all rules that hit
// it, joined. The first status wins, delays add up.
func (fr *faultRules) strike(verb, bucket, key string) Fault {
	fr.mu.Lock()
	defer fr.mu.Unlock()
	var sum Fault
	hit := false
	for _, r := range fr.rules {
		if !r.hit(verb, bucket, key) {
			continue
		}
		hit = true
		sum.Delay += r.Delay
		if sum.Status == 0 && sum.Code == "" {
			sum.Status, sum.Code = r.Status, r.Code
		}
		sum.Reset = sum.Reset || r.Reset
		sum.Stall = sum.Stall || r.Stall
		sum.LoseReply = sum.LoseReply || r.LoseReply
		sum.TruncateBody = sum.TruncateBody || r.TruncateBody
		sum.StallBody = sum.StallBody || r.StallBody
		sum.FlipBit = sum.FlipBit || r.FlipBit
		sum.ErrorIn200 = sum.ErrorIn200 || r.ErrorIn200
		sum.HideSSE = sum.HideSSE || r.HideSSE
		sum.DropSSE = sum.DropSSE || r.DropSSE
	}
	if hit {
		fr.strikes++
	}
	return sum
}
