package fs

import (
	"fmt"
	"testing"
	"time"
)

// TestWalk: who goes from one directory to the next is followed, and nobody else.
func TestWalk(t *testing.T) {
	type step struct {
		do   string // open, stat, wait (to open), late (a listing), full (no room from there on)
		pos  int
		at   time.Duration // after the step before
		want string        // to be asked for
	}
	open := func(pos int, want string) step { return step{"open", pos, 0, want} }
	for name, c := range map[string]struct {
		levels int
		steps  []step
	}{
		"from the first on": {0, []step{
			open(0, ""), open(1, "2-3"), open(2, "4"), open(3, "5"),
		}},
		"from elsewhere": {0, []step{
			open(50, ""), open(51, ""), open(52, "53-54"), open(53, "55"),
		}},
		"one alone": {0, []step{open(0, ""), open(0, ""), open(70, ""), open(7, "")}},
		"each twice": {0, []step{
			open(50, ""), open(50, ""), open(51, ""), open(51, ""), open(52, "53-54"), open(52, ""), open(53, "55"),
		}},
		"back and forth": {0, []step{
			open(50, ""), open(49, ""), open(50, ""), open(49, ""), open(50, ""),
		}},
		"attributes only": {0, []step{{"stat", 0, 0, ""}, {"stat", 1, 0, ""}, {"stat", 2, 0, ""}, {"stat", 3, 0, ""}}},
		"looked up before they are opened": {0, []step{
			{"stat", 0, 0, ""}, open(0, ""), {"stat", 1, 0, ""}, open(1, "2-3"), {"stat", 2, 0, "4"}, open(2, ""),
		}},
		"the walker waits": {0, []step{
			open(0, ""), open(1, "2-3"), {"wait", 2, 0, "4-6"},
			{"wait", 3, 0, "7"}, // it was asked for before the window grew
			{"wait", 4, 0, "8-12"}, open(5, "13"), open(6, "14"), {"wait", 7, 0, "15"}, {"wait", 8, 0, "16-24"},
			{"wait", 16, 0, "25-48"}, {"wait", 25, 0, "49-57"}, {"wait", 49, 0, "58-81"}, open(80, "82-99"), open(81, ""),
		}},
		"some are left out, or come later": {0, []step{
			open(0, ""), open(1, "2-3"), open(3, "4-5"), open(2, ""), open(7, "8-9"), open(13, "14-15"), open(11, ""),
		}},
		"somebody else opens others": {0, []step{
			open(0, ""), open(1, "2-3"), open(60, ""), {"stat", 70, 0, ""}, open(2, "4"), open(61, ""), open(62, ""), open(3, "5"),
		}},
		"slowly": {0, []step{
			open(0, ""), {"open", 1, aheadFor, "2-3"}, {"open", 2, aheadFor, "4"},
			{"open", 3, aheadFor + 1, ""}, open(4, ""), open(5, "6-7"),
		}},
		"by hand": {0, []step{
			open(0, ""), {"open", 1, 2 * aheadFor, ""}, {"open", 2, 2 * aheadFor, ""}, {"open", 3, 2 * aheadFor, ""},
		}},
		"listings that become too old": {0, []step{
			open(0, ""), open(1, "2-3"), {"wait", 2, 0, "4-6"}, {"wait", 4, 0, "7-12"},
			{"late", 7, 0, ""}, {"late", 8, 0, ""}, {"late", 9, 0, ""}, {"late", 10, 0, ""},
			open(5, ""), open(6, "7"), open(7, "8"),
		}},
		"no room": {0, []step{
			open(0, ""), open(1, "2-3"), {"full", 3, 0, ""}, open(2, "3-4"), {"full", 3, 0, ""}, open(2, "3-4"),
		}},
		"below a walk that goes deep": {2, []step{{"stat", 0, 0, "1-8"}, open(0, ""), open(1, "9")}},
		"below one, but not here":     {2, []step{open(50, ""), open(20, "")}},
	} {
		t.Run(name, func(t *testing.T) {
			var w walk
			now := time.Unix(1000, 0)
			w.begin(c.levels)
			for i := range 100 {
				w.add(fmt.Sprint(i), now)
			}
			for i, s := range c.steps {
				now = now.Add(s.at)
				switch s.do {
				case "late":
					w.tooLate(s.pos)
					continue
				case "full":
					w.refused(s.pos)
					continue
				}
				got := ""
				if w.cameTo(s.pos, s.do != "stat", s.do == "wait", now) {
					if from, to := w.ask(); to-from == 1 {
						got = fmt.Sprint(from)
					} else if to > from {
						got = fmt.Sprintf("%d-%d", from, to-1)
					}
				}
				if got != s.want {
					t.Fatalf("step %d, %s %d: asks for %q, want %q", i, s.do, s.pos, got, s.want)
				}
			}
		})
	}
}
