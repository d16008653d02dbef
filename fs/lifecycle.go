package fs

import "math"

// What happens to a file that is written is decided here, from values alone.
// content.go, commit.go and handle.go do it.

// state is where the bytes of a file are that the store does not have.
//
//	           write at 0 of nothing            full
//	clean, failed ----------------> buffered -----------> streaming
//	      |                         |     |                   |
//	      | any other write,        |     | commit            | commit,
//	      | new size   not in order,|     |                   | not in order,
//	      |            full         |     |                   | read back
//	      +-----------> staged <----+     |                   |
//	                       | commit       |                   |
//	                       +---------> committing <-----------+
//	                                   |        |
//	                            stored |        | refused
//	                                   v        v
//	                                 clean    failed
//
// Truncation to nothing leads from every state to buffered, and sends nothing:
// what the store has is what the next commit replaces. A refusal of what is
// sent before a commit leads to failed as well. Streaming bytes that are read
// back or changed are committed first, for parts cannot be had back, and what
// was to be done is done to the version that this made.
//
// A file without a name is not committed. It does not begin to stream, and one
// that lost its name while it did can only be written on.
type state int

const (
	// clean: there are none.
	clean state = iota
	// buffered: all of the file is in memory.
	buffered
	// streaming: all of the file went into an upload, in order.
	streaming
	// staged: the file is a stage, over what the store has.
	staged
	// committing: all of the file went into an upload, and the store has to
	// say whether it has it. Nothing else happens to the file meanwhile.
	committing
	// failed: they were dropped, or kept for rescue. Whoever opens the file
	// from now on finds it clean; the failure is the answer to who had it open.
	failed
)

// local reports whether there are bytes that the store does not have.
func (s state) local() bool { return s != clean && s != failed }

// headMax is how much of a file is kept in memory before its upload begins.
// Programs that come back to the start of a file (archivers, linkers) mostly
// do so early; up to here that costs nothing.
const headMax = 4 << 20

// present is all that decides what an event does to a file.
type present struct {
	state state
	size  int64 // in bytes, as a stat shows it
	room  int64 // bytes that fit into memory beside those that are there
	full  bool  // more memory is not to be had
	gone  bool  // the file has no name
	stale bool  // another version has the name
	// rewrite is the most bytes of what the store has that a commit may send
	// again; 0: any number.
	rewrite int64
	// failures counts what was refused.
	failures int
}

// event is what a program wants with the content of a file.
type event struct {
	kind eventKind
	// failures is how many there were when the handle was opened.
	failures int
	off      int64 // of onWrite and onCopy
	n        int64 // bytes from off; or the size that is wanted
}

// byName is the failures of an event that comes through no handle, or whose
// handle begins anew: it has nothing to be told.
const byName = math.MaxInt

type eventKind int

const (
	onWrite        eventKind = iota
	onCopy                   // append what the store has already
	onTruncate               // ftruncate(2) or truncate(2)
	onOpenTruncate           // O_TRUNC
	onAllocate               // fallocate(2)
	onReadBack               // read(2) of a file that was local a moment ago
	onCommit                 // close, fsync, rename, unmount
)

// step is what is done for an event. Below doBegin the event has ended; after
// every other step it is looked at anew.
type step int

const (
	doNothing step = iota
	doApply        // the bytes are where the event can be applied to them
	doTell         // answer with the failure, or that the file is stale
	doRefuse       // answer that an upload without a name cannot be had back
	doExceed       // answer that too much would have to be sent again
	doDecline      // leave it to the kernel to read and write

	doBegin    // what the store has becomes what a commit replaces
	doDiscard  // drop all bytes
	doEnlarge  // ask for more memory
	doSpill    // from memory to a stage
	doOverlay  // a stage over what the store has
	doUpload   // from memory into an upload
	doSend     // what was not sent yet
	doComplete // the store makes an object of what was sent
)

// transition is a step, the state that it leads to, and the one that it leads
// to when it fails.
type transition struct {
	step       step
	to, orElse state
}

// next returns the next step for ev.
func next(p present, ev event) transition {
	switch {
	case ev.failures < p.failures, p.stale && ev.failures != byName:
		return p.stay(doTell)
	case p.state == committing:
		return transition{doComplete, clean, failed}
	case ev.kind == onCommit && (p.gone || !p.state.local()), ev.kind == onAllocate && ev.n <= p.size:
		return p.stay(doNothing)
	case ev.kind == onCommit:
		return transition{doSend, committing, failed}
	case ev.kind == onCopy && (p.gone || !p.appends(ev)):
		return p.stay(doDecline)
	case ev.empties() && p.state.local() && (p.state != buffered || p.size > 0):
		return transition{doDiscard, buffered, buffered}
	}
	switch p.state {
	case buffered:
		return p.nextBuffered(ev)
	case streaming:
		return p.nextStreaming(ev)
	case staged:
		return p.stay(doApply)
	}
	switch {
	case ev.kind == onReadBack, ev.kind == onTruncate && ev.n == p.size:
		return p.stay(doNothing)
	case ev.empties(), p.appends(ev):
		return p.leave(doBegin, buffered)
	case p.exceeds(ev):
		return p.stay(doExceed)
	}
	return p.leave(doOverlay, staged)
}

func (p present) nextBuffered(ev event) transition {
	end := ev.off + ev.n
	switch {
	case ev.kind == onReadBack:
		return p.stay(doApply)
	case ev.kind == onCopy:
		return transition{doUpload, streaming, failed}
	case ev.kind == onWrite && !p.appends(ev):
		return p.leave(doSpill, staged)
	case end <= headMax && end-p.size <= p.room:
		return p.stay(doApply)
	case end <= headMax && !p.full:
		return p.stay(doEnlarge)
	case ev.kind == onWrite && !p.gone:
		return transition{doUpload, streaming, failed}
	}
	return p.leave(doSpill, staged)
}

func (p present) nextStreaming(ev event) transition {
	switch {
	case p.appends(ev):
		return transition{doApply, streaming, failed}
	case ev.kind == onTruncate && ev.n == p.size:
		return p.stay(doNothing)
	case p.gone:
		return p.stay(doRefuse)
	case ev.kind != onReadBack && p.exceeds(ev):
		return p.stay(doExceed) // before a part of it becomes visible
	}
	return transition{doSend, committing, failed}
}

// appends reports whether ev goes on where a file ends that was written in order.
func (p present) appends(ev event) bool {
	inOrder := p.state == buffered || p.state == streaming || !p.state.local() && p.size == 0
	return inOrder && ev.off == p.size && (ev.kind == onWrite || ev.kind == onCopy)
}

// exceeds reports whether a commit would have too much to send again after ev.
func (p present) exceeds(ev event) bool { return p.rewrite > 0 && p.keeps(ev) > p.rewrite }

// keeps is how many bytes of the file are as they were after ev, and what it overwrites.
func (p present) keeps(ev event) int64 {
	if ev.kind == onTruncate {
		return min(p.size, ev.n)
	}
	return p.size
}

// empties reports whether ev leaves nothing of the file.
func (ev event) empties() bool {
	return ev.kind == onOpenTruncate || ev.kind == onTruncate && ev.n == 0
}

// stay is a step that changes no state.
func (p present) stay(s step) transition { return transition{s, p.state, p.state} }

// leave is a step that changes nothing when it fails.
func (p present) leave(s step, to state) transition { return transition{s, to, p.state} }

// due is what has to be done before the end of a handle, or an fsync, is answered.
type due int

const (
	dueNothing due = iota
	dueFailure     // say whether what was written was lost
	dueCommit
	dueRemoval // of what an unlinked file leaves
)

// onFlush is a close(2), which is told for every descriptor, those that a child
// process inherited included.
//
//	sh -c '(a; b) > file'
//
// opens the file once; when a ends, its copy is closed, and the file is not
// done. So only a close by the process that opened it commits, and only where
// something was changed through this handle: others are at work. What is left
// is committed by onRelease.
func onFlush(writes, wrote, byOpener bool) due {
	switch {
	case !writes:
		return dueNothing
	case !wrote || !byOpener:
		return dueFailure
	}
	return dueCommit
}

// onFsync is an fsync(2): whoever it was that wrote, another machine sees it.
func onFsync(writes bool) due {
	if writes {
		return dueCommit
	}
	return dueNothing
}

// onRelease is the end of a handle, after which so many are open, and some of
// them for writing.
func onRelease(writes, gone bool, handles, writers int) due {
	switch {
	case gone && handles == 0:
		return dueRemoval
	case !gone && writes && writers == 0:
		return dueCommit
	}
	return dueNothing
}

// onResized follows a truncation of a file that was in the state before. One by
// name is committed at once, unless a writer has more to commit: one may have
// closed already, of which the kernel tells late, so that writers alone count
// for nothing.
func onResized(named bool, writers int, before state) due {
	if named && (writers == 0 || !before.local()) {
		return dueCommit
	}
	return dueNothing
}
