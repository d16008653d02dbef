package message

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// FramePrefix is what comes before the ciphertext of a regular frame, and
	// FinalPrefix what comes before that of the final one, in bytes.
	FramePrefix = 4 + ivBytes
	FinalPrefix = 4 + 4 + ivBytes + 4
	// FrameOverhead and FinalOverhead are what a frame takes beyond its
	// plaintext.
	FrameOverhead = FramePrefix + tagBytes
	FinalOverhead = FinalPrefix + tagBytes

	// maxFull is how many regular frames there can be: the final frame's
	// sequence number is at most 2^32-1, and no regular frame has that one.
	maxFull = 1<<32 - 2
)

// Profile is what the sizes of messages depend on, in bytes: together with
// the stored size it gives the size of the plaintext without a read.
type Profile struct {
	Header int64 // H
	Frame  int64 // F, at least 1
	Footer int64 // S, 0 in suites without signature
}

// Own is the profile of what Coffer writes with one or two recipients; with
// more the header may be a larger multiple of [HeaderUnit].
var Own = Profile{Header: HeaderUnit, Frame: 64 << 10}

// String returns the profile as objects carry it in their metadata:
// "1;h=1024;f=65536;s=0".
func (p Profile) String() string {
	return fmt.Sprintf("1;h=%d;f=%d;s=%d", p.Header, p.Frame, p.Footer)
}

// ParseProfile is the reverse of String. The text is only a hint: whoever can
// write to the store can change it.
func ParseProfile(text string) (Profile, error) {
	bad := fail(Malformed, "profile", "%.64q is not like %q", text, Own)
	fields := strings.Split(text, ";")
	if len(fields) != 4 || fields[0] != "1" {
		return Profile{}, bad
	}
	var p Profile
	for i, f := range []struct {
		name     string
		value    *int64
		min, max int64
	}{{"h=", &p.Header, 1, MaxHeader}, {"f=", &p.Frame, 1, MaxFrame}, {"s=", &p.Footer, 0, 1 << 16}} {
		digits, ok := strings.CutPrefix(fields[i+1], f.name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || digits != strconv.FormatUint(n, 10) || int64(n) < f.min || int64(n) > f.max {
			return Profile{}, bad
		}
		*f.value = int64(n)
	}
	return p, nil
}

// Layout is where everything is in one message of frames.
type Layout struct {
	Profile
	Full int64 // number of regular frames
	Last int64 // bytes of plaintext in the final frame, 0..F
}

// ForStored returns the layout of a message of so many bytes. Only the final
// frame proves it: see [Opener.Locate].
//
//	B = stored - H - S - 40;  Full = B div (F+32);  Last = B mod (F+32) <= F
func (p Profile) ForStored(stored int64) (Layout, error) {
	body := stored - p.Header - p.Footer - FinalOverhead
	if body < 0 {
		return Layout{}, fail(Malformed, "message", "cut off: %d bytes, the shortest with this header has %d", stored, stored-body)
	}
	l := Layout{Profile: p, Full: body / (p.Frame + FrameOverhead), Last: body % (p.Frame + FrameOverhead)}
	if l.Last > p.Frame {
		return Layout{}, fail(Malformed, "message", "%d bytes are cut off within a frame of %d, or are not of the profile %s", stored, p.Frame, p)
	}
	if l.Full > maxFull {
		return Layout{}, fail(TooLarge, "message", "%d bytes are more than 2^32-1 frames of %d", stored, p.Frame)
	}
	return l, nil
}

// ForSize returns the layout of a plaintext of so many bytes as Coffer writes it:
// every full frame is a regular one, and where nothing is left the final frame
// is empty. Other writers make the last full frame the final one; both are
// legal, and ForStored tells them apart.
func (p Profile) ForSize(size int64) (Layout, error) {
	l := Layout{Profile: p, Full: size / p.Frame, Last: size % p.Frame}
	if size < 0 || l.Full > maxFull {
		return Layout{}, fail(TooLarge, "message", "%d bytes do not fit in 2^32-1 frames of %d", size, p.Frame)
	}
	return l, nil
}

// Size is the number of bytes of plaintext.
func (l Layout) Size() int64 { return l.Full*l.Frame + l.Last }

// Stored is the number of bytes of the message.
func (l Layout) Stored() int64 { return l.Offset(l.Full) + FinalOverhead + l.Last + l.Footer }

// Offset is where frame i begins in the message; frame Full is the final one.
func (l Layout) Offset(i int64) int64 { return l.Header + i*(l.Frame+FrameOverhead) }

// Bytes is the length of frame i in the message.
func (l Layout) Bytes(i int64) int64 {
	if i == l.Full {
		return FinalOverhead + l.Last
	}
	return l.Frame + FrameOverhead
}

// Cover returns the frames [first, end) that hold the plaintext [off, off+n),
// which lies within Size; n is at least 1.
func (l Layout) Cover(off, n int64) (first, end int64) {
	return off / l.Frame, (off+n-1)/l.Frame + 1
}
