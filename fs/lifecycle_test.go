package fs

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	stateNames = map[state]string{clean: "clean", buffered: "buffered", streaming: "streaming", staged: "staged", committing: "committing", failed: "failed"}
	eventNames = map[eventKind]string{
		onWrite: "write", onCopy: "copy", onTruncate: "truncate", onOpenTruncate: "O_TRUNC", onAllocate: "allocate", onReadBack: "read", onCommit: "commit",
	}
	stepNames = map[step]string{
		doNothing: "nothing", doApply: "apply", doTell: "tell", doRefuse: "refuse", doExceed: "exceed", doDecline: "decline", doBegin: "begin", doDiscard: "discard",
		doEnlarge: "enlarge", doSpill: "spill", doOverlay: "overlay", doUpload: "upload", doSend: "send", doComplete: "complete",
	}
)

func (t transition) String() string {
	return stepNames[t.step] + " -> " + stateNames[t.to] + " | " + stateNames[t.orElse]
}

// lifecycle is what next has to say: states, event, the words of situation that
// must hold, and the step, the state that it leads to, and the one that it
// leads to when it fails; without those nothing changes.
const lifecycle = `
clean,failed  write     empty end         begin     buffered
clean,failed  write     empty elsewhere   overlay   staged
clean,failed  write     some little       overlay   staged
clean,failed  write     some much         exceed
clean,failed  copy      empty end named   begin     buffered
clean,failed  copy      empty end gone    decline
clean,failed  copy      empty elsewhere   decline
clean,failed  copy      some              decline
clean,failed  truncate  as-it-is          nothing
clean,failed  truncate  other-size zero   begin     buffered
clean,failed  truncate  other-size sized little  overlay  staged
clean,failed  truncate  other-size sized much    exceed
clean,failed  O_TRUNC                     begin     buffered
clean,failed  allocate  enough            nothing
clean,failed  allocate  longer little     overlay   staged
clean,failed  allocate  longer much       exceed
clean,failed  read                        nothing
clean,failed  commit                      nothing

buffered      write     elsewhere         spill     staged
buffered      write     end fits          apply
buffered      write     end ask           enlarge
buffered      write     end full named    upload    streaming  failed
buffered      write     end full gone     spill     staged
buffered      write     end long named    upload    streaming  failed
buffered      write     end long gone     spill     staged
buffered      copy      end named         upload    streaming  failed
buffered      copy      elsewhere named   decline
buffered      copy      gone              decline
buffered      truncate  zero some         discard   buffered   buffered
buffered      truncate  zero empty        apply
buffered      truncate  sized fits        apply
buffered      truncate  sized ask         enlarge
buffered      truncate  sized full        spill     staged
buffered      truncate  sized long        spill     staged
buffered      O_TRUNC   some              discard   buffered   buffered
buffered      O_TRUNC   empty             apply
buffered      allocate  enough            nothing
buffered      allocate  longer fits       apply
buffered      allocate  longer ask        enlarge
buffered      allocate  longer full       spill     staged
buffered      allocate  longer long       spill     staged
buffered      read                        apply
buffered      commit    named             send      committing failed
buffered      commit    gone              nothing

streaming     write     end               apply     streaming  failed
streaming     write     elsewhere named little send committing failed
streaming     write     elsewhere named much   exceed
streaming     write     elsewhere gone    refuse
streaming     copy      end named         apply     streaming  failed
streaming     copy      elsewhere named   decline
streaming     copy      gone              decline
streaming     truncate  zero              discard   buffered   buffered
streaming     truncate  sized as-it-is    nothing
streaming     truncate  sized other-size named little send committing failed
streaming     truncate  sized other-size named much   exceed
streaming     truncate  sized other-size gone   refuse
streaming     O_TRUNC                     discard   buffered   buffered
streaming     allocate  enough            nothing
streaming     allocate  longer named little send    committing failed
streaming     allocate  longer named much  exceed
streaming     allocate  longer gone       refuse
streaming     read      named             send      committing failed
streaming     read      gone              refuse
streaming     commit    named             send      committing failed
streaming     commit    gone              nothing

staged        write                       apply
staged        copy                        decline
staged        truncate  zero              discard   buffered   buffered
staged        truncate  sized             apply
staged        O_TRUNC                     discard   buffered   buffered
staged        allocate  enough            nothing
staged        allocate  longer            apply
staged        read                        apply
staged        commit    named             send      committing failed
staged        commit    gone              nothing

committing    write                       complete  clean      failed
committing    copy                        complete  clean      failed
committing    truncate                    complete  clean      failed
committing    O_TRUNC                     complete  clean      failed
committing    allocate                    complete  clean      failed
committing    read                        complete  clean      failed
committing    commit                      complete  clean      failed
`

// rule is a line of lifecycle.
type rule struct {
	states, event string
	words         []string
	step          string
	to, orElse    string // "-" is where it is
}

func rules() []rule {
	isStep := map[string]bool{}
	for _, nm := range stepNames {
		isStep[nm] = true
	}
	var all []rule
	for line := range strings.Lines(lifecycle) {
		if f := strings.Fields(line); len(f) > 0 {
			at := slices.IndexFunc(f, func(w string) bool { return isStep[w] })
			to := append(slices.Clone(f[at+1:]), "-", "-")
			all = append(all, rule{f[0], f[1], f[2:at], f[at], to[0], to[1]})
		}
	}
	return all
}

func (r rule) covers(p present, ev event) bool {
	return slices.Contains(strings.Split(r.states, ","), stateNames[p.state]) && r.event == eventNames[ev.kind] &&
		!slices.ContainsFunc(r.words, func(w string) bool { return !slices.Contains(situation(p, ev), w) })
}

func (r rule) String() string {
	return r.step + " -> " + r.to + " | " + r.orElse
}

// situation is what holds of p and ev, in the words of lifecycle.
func situation(p present, ev event) []string {
	pick := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	end := ev.off + ev.n
	memory := "ask"
	switch {
	case end > headMax:
		memory = "long"
	case end-p.size <= p.room:
		memory = "fits"
	case p.full:
		memory = "full"
	}
	kept := p.size
	if ev.kind == onTruncate {
		kept = min(kept, ev.n)
	}
	words := []string{pick(p.gone, "gone", "named"), pick(p.size == 0, "empty", "some"), memory, pick(p.rewrite > 0 && kept > p.rewrite, "much", "little")}
	switch ev.kind {
	case onWrite, onCopy:
		return append(words, pick(ev.off == p.size, "end", "elsewhere"))
	case onTruncate:
		return append(words, pick(ev.n == 0, "zero", "sized"), pick(ev.n == p.size, "as-it-is", "other-size"))
	case onAllocate:
		return append(words, pick(ev.n <= p.size, "enough", "longer"))
	}
	return words
}

// situations yields every state with every event, in every situation that
// counts, and the limits of each.
func situations(yield func(present, event) bool) {
	for s := range stateNames {
		for bits := range 1 << 4 {
			for _, size := range []int64{0, 1, headMax / 2, headMax, headMax + 1} {
				p := present{state: s, size: size, gone: bits&1 != 0, full: bits&2 != 0, room: 100 * int64(bits&4)}
				if !s.local() {
					p.room = 0
				}
				if bits&8 != 0 {
					p.rewrite = headMax / 2
				}
				var events []event
				for _, at := range []int64{0, 1, size, size + 1} {
					for _, m := range []int64{1, 400, 401, headMax - size, headMax + 1} {
						if m > 0 {
							events = append(events, event{kind: onWrite, off: at, n: m}, event{kind: onCopy, off: at, n: m})
						}
					}
				}
				for _, m := range []int64{0, 1, size / 2, size, size + 1, size + 400, size + 401, headMax, headMax + 1} {
					events = append(events, event{kind: onTruncate, n: m}, event{kind: onAllocate, n: m})
				}
				events = append(events, event{kind: onOpenTruncate}, event{kind: onReadBack}, event{kind: onCommit})
				for _, ev := range events {
					if !yield(p, ev) {
						return
					}
				}
			}
		}
	}
}

// Every event in every state has one rule, and next follows it.
func TestLifecycle(t *testing.T) {
	all := rules()
	used := make([]bool, len(all))
	for p, ev := range situations {
		var found []int
		for i, r := range all {
			if r.covers(p, ev) {
				found = append(found, i)
				used[i] = true
			}
		}
		if len(found) != 1 {
			t.Fatalf("%s, %s, %q: %d rules", stateNames[p.state], eventNames[ev.kind], situation(p, ev), len(found))
		}
		r := all[found[0]]
		want := strings.ReplaceAll(r.String(), "-> -", "-> "+stateNames[p.state])
		want = strings.ReplaceAll(want, "| -", "| "+stateNames[p.state])
		if got := next(p, ev).String(); got != want {
			t.Errorf("%s, %s, %q: %s, want %s (%+v, %+v)", stateNames[p.state], eventNames[ev.kind], situation(p, ev), got, want, p, ev)
		}
	}
	for i, r := range all {
		if !used[i] {
			t.Errorf("nothing is a case of %q", r)
		}
	}
}

// A handle that was open when something failed is answered with that, whatever
// it asks for and whatever the file has become; so is one of a stale file.
func TestFailureAnswersEverything(t *testing.T) {
	for p, ev := range situations {
		want := transition{doTell, p.state, p.state}
		plain := next(p, ev)
		p.failures, ev.failures = 3, 2
		if got := next(p, ev); got != want {
			t.Errorf("open before the failure: %v, want %v", got, want)
		}
		ev.failures = 3
		if got := next(p, ev); got != plain {
			t.Errorf("opened after it: %v, want %v", got, plain)
		}
		p.stale = true
		if got := next(p, ev); got != want {
			t.Errorf("of a stale file: %v, want %v", got, want)
		}
		ev.failures = byName
		if got := next(p, ev); got != plain {
			t.Errorf("by name: %v, want %v", got, plain)
		}
	}
}

func TestEndOfHandle(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want due
	}{
		{"close of a reader", onFlush(false, false, true), dueNothing},
		{"close of a reader by a child", onFlush(false, false, false), dueNothing},
		{"close of a writer that wrote nothing", onFlush(true, false, true), dueFailure},
		{"close of a writer that wrote nothing, by a child", onFlush(true, false, false), dueFailure},
		{"close of a writer", onFlush(true, true, true), dueCommit},
		{"close of a writer by a child", onFlush(true, true, false), dueFailure},

		{"fsync of a reader", onFsync(false), dueNothing},
		{"fsync of a writer", onFsync(true), dueCommit},

		{"end of the only reader", onRelease(false, false, 0, 0), dueNothing},
		{"end of a reader, writers are left", onRelease(false, false, 2, 1), dueNothing},
		{"end of the only writer", onRelease(true, false, 0, 0), dueCommit},
		{"end of the last writer, readers are left", onRelease(true, false, 1, 0), dueCommit},
		{"end of a writer, others are left", onRelease(true, false, 2, 1), dueNothing},
		{"unlinked: end of the only reader", onRelease(false, true, 0, 0), dueRemoval},
		{"unlinked: end of a reader, others are left", onRelease(false, true, 1, 0), dueNothing},
		{"unlinked: end of the only writer", onRelease(true, true, 0, 0), dueRemoval},
		{"unlinked: end of the last writer, readers are left", onRelease(true, true, 1, 0), dueNothing},
		{"unlinked: end of a writer, others are left", onRelease(true, true, 2, 1), dueNothing},

		{"ftruncate", onResized(false, 1, clean), dueNothing},
		{"ftruncate of what is written", onResized(false, 1, staged), dueNothing},
		{"truncate", onResized(true, 0, clean), dueCommit},
		{"truncate after a failure", onResized(true, 0, failed), dueCommit},
		{"truncate of what a writer has open and left alone", onResized(true, 1, clean), dueCommit},
		{"truncate of what failed for a writer", onResized(true, 1, failed), dueCommit},
		{"truncate of what is written", onResized(true, 1, buffered), dueNothing},
		{"truncate of what is streaming", onResized(true, 1, streaming), dueNothing},
		{"truncate of what was written, before its release", onResized(true, 0, staged), dueCommit},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// lifeOf is a file made of the least that does what the steps say. A byte
// stands for unit bytes of a real one, so that headMax is a few of them.
type lifeOf struct {
	t       *testing.T
	present // sizes in real bytes
	// store is what others see; sent an upload; bytes what else is here.
	store, sent, bytes []byte
	budget             int // bytes of memory
	published          int
	// seen is what a program sees, by a local file system's rules.
	seen []byte
	// handles tell how many failures there were when each was opened.
	handles [3]int
}

const unit = headMax / 4

// here is the content where the state says that it is.
func (l *lifeOf) here() []byte {
	switch l.state {
	case clean, failed:
		return l.store
	case streaming:
		return l.sent
	}
	return l.bytes
}

// wanted returns what ev makes of b; mark is the byte that it writes.
func wanted(b []byte, ev event, mark byte) []byte {
	off, n := int(ev.off/unit), int(ev.n/unit)
	size := len(b)
	switch ev.kind {
	case onWrite, onCopy:
		size = max(size, off+n)
	case onTruncate, onOpenTruncate:
		size = n
	case onAllocate:
		size = max(size, n)
	}
	b = append(slices.Clone(b), make([]byte, max(0, size-len(b)))...)[:size]
	if ev.kind == onWrite || ev.kind == onCopy {
		copy(b[off:], bytes.Repeat([]byte{mark}, n))
	}
	return b
}

// step takes one, which fails when it is broken, and reports whether the event
// has ended.
func (l *lifeOf) step(tr transition, ev event, mark byte, broken bool) (over bool) {
	if l.gone && (tr.step == doUpload || tr.step == doSend || tr.step == doComplete) {
		l.t.Fatalf("%v of a file without a name", tr)
	}
	if tr.step < doBegin && tr.step != doApply {
		return true
	}
	if tr.step == doEnlarge {
		add := int((ev.off+ev.n-l.size)/unit) - int(l.room/unit)
		if l.full = l.budget < add; !l.full {
			l.budget -= add
			l.room += int64(add) * unit
		}
		return false
	}
	if broken {
		l.sent = append(l.sent, '!') // some of it may have got there
		if l.state = tr.orElse; l.state == failed {
			l.sent, l.bytes = nil, nil
			l.failures++
			l.seen = slices.Clone(l.store)
		}
		return true
	}
	switch tr.step {
	case doApply:
		b := wanted(l.here(), ev, mark)
		if l.state == streaming {
			if !bytes.HasPrefix(b, l.sent) {
				l.t.Fatalf("%q was sent and cannot become %q", l.sent, b)
			}
			l.sent = b
		} else {
			if grown := len(b) - len(l.bytes); l.state == buffered {
				if l.room -= int64(grown) * unit; l.room < 0 || len(b)*unit > headMax {
					l.t.Fatalf("%d bytes do not fit into memory", len(b))
				}
			}
			l.bytes = b
		}
		over = true
	case doBegin, doDiscard:
		l.sent, l.bytes = nil, nil
	case doSpill, doOverlay:
		l.bytes = slices.Clone(l.here())
	case doUpload:
		l.sent, l.bytes = l.bytes, nil
	case doSend:
		if l.state != streaming {
			l.sent = slices.Clone(l.bytes)
		}
	case doComplete:
		l.store, l.sent, l.bytes = l.sent, nil, nil
		l.published++
	}
	if l.state != tr.to || tr.step == doDiscard {
		l.room = 0
	}
	l.state = tr.to
	return over
}

// arrows are those of the diagram above state.
var arrows = map[state][]state{
	clean:      {buffered, staged},
	failed:     {buffered, staged},
	buffered:   {streaming, staged, committing, failed},
	streaming:  {buffered, committing, failed},
	staged:     {buffered, committing, failed},
	committing: {clean, failed},
}

// do has an event happen; the step number broken fails.
func (l *lifeOf) do(ev event, mark byte, broken int) {
	before, published := l.state, l.published
	l.full = false
	l.size = int64(len(l.here())) * unit
	for i := 0; ; i++ {
		if i > 8 {
			l.t.Fatalf("%s of a file that was %s does not end", eventNames[ev.kind], stateNames[before])
		}
		from := l.state
		tr := next(l.present, ev)
		// Bytes in memory can be changed and dropped, whatever happens.
		breaks := i == broken && tr.step != doDiscard && (tr.step != doApply || from != buffered)
		over := l.step(tr, ev, mark, breaks)
		if l.state != from && !slices.Contains(arrows[from], l.state) {
			l.t.Fatalf("%s leads from %s to %s", eventNames[ev.kind], stateNames[from], stateNames[l.state])
		}
		if l.state != committing {
			l.size = int64(len(l.here())) * unit
		}
		if !over {
			continue
		}
		if tr.step == doApply && !breaks {
			l.seen = wanted(l.seen, ev, mark)
		}
		break
	}
	switch {
	case l.state == committing:
		l.t.Fatalf("%s ends while committing", eventNames[ev.kind])
	case !bytes.Equal(l.here(), l.seen):
		l.t.Fatalf("%s of a file that was %s: %q, want %q", eventNames[ev.kind], stateNames[before], l.here(), l.seen)
	case ev.kind == onCommit && !l.gone && l.state.local() && ev.failures >= l.failures:
		l.t.Fatalf("a commit ends %s", stateNames[l.state])
	case l.published > published && ev.kind != onCommit && (before != streaming || ev.empties()):
		l.t.Fatalf("%s of a file that was %s publishes it", eventNames[ev.kind], stateNames[before])
	}
}

// live has a file go through the events that script stands for.
func live(t *testing.T, script []byte) {
	l := &lifeOf{t: t, budget: 1000}
	mark := byte('a')
	for len(script) >= 5 {
		op, by, off, n, broken := script[0]%13, script[1]%4, script[2], script[3], int(script[4])
		script = script[5:]
		ev := event{kind: eventKind(op), failures: byName, n: int64(n%7) * unit}
		through := by < 3
		if through {
			ev.failures = l.handles[by]
		}
		told := through && ev.failures < l.failures
		mark = 'a' + (mark-'a'+1)%26
		before := l.state
		switch {
		case op == 7 || op == 8: // more writes, at the end
			ev.kind = onWrite
			fallthrough
		case ev.kind == onWrite || ev.kind == onCopy:
			ev.off, ev.n = int64(off%8)*unit, max(unit, ev.n)
			if ev.kind == onCopy || op > 6 {
				ev.off = int64(len(l.here())) * unit
			}
		case op == 9:
			l.gone = !l.gone // linkat(2) gives a name back
			continue
		case op == 10:
			if through {
				l.handles[by] = l.failures
			}
			continue
		case op == 11:
			l.budget = int(n)
			continue
		case op == 12:
			if l.gone { // the last close of an unlinked file
				l = &lifeOf{t: t, budget: l.budget}
			}
			continue
		case ev.kind == onOpenTruncate:
			ev.failures, ev.n, told = byName, 0, false
			if through {
				l.handles[by] = l.failures
			}
		case ev.kind == onReadBack:
			if ev.failures, ev.n, told = byName, 0, false; !l.state.local() {
				continue
			}
		case ev.kind == onCommit:
			ev.n = 0
		}
		seen := slices.Clone(l.seen)
		l.do(ev, mark, broken)
		if told && (l.state != before || !bytes.Equal(l.seen, seen)) {
			t.Fatalf("%s by a handle that was open before a failure changes the file", eventNames[ev.kind])
		}
	}
}

func TestLivesOfFiles(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 0))
		script := make([]byte, 5*200)
		for i := range script {
			script[i] = byte(r.Uint32())
			if i%5 == 4 && r.IntN(8) != 0 {
				script[i] = 255 // nothing breaks
			} else if i%5 == 4 {
				script[i] %= 4
			}
		}
		live(t, script)
	}
}

func FuzzLivesOfFiles(f *testing.F) {
	f.Add([]byte{0, 3, 0, 6, 255, 5, 3, 0, 0, 255, 6, 3, 0, 0, 2}) // a stream is read back, and its commit fails
	f.Fuzz(func(t *testing.T, script []byte) { live(t, script[:min(len(script), 5*200)]) })
}
