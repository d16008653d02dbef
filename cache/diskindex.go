package cache

// diskIndex knows what is in the disk tier and what leaves next: a clock whose
// hand passes by what was used since it came by last, as often as it was used,
// up to three times. What is read once, by a copy of a large tree, leaves
// before what is read again. An entry takes about 80 bytes.
type diskIndex struct {
	slots []diskSlot
	at    map[diskName]int32 // index in slots
	free  []int32
	hand  int
	bytes int64
	round uint8 // of the scan that goes on, or was the last
}

// diskSlot is free when its size is 0.
type diskSlot struct {
	name  diskName
	size  uint32
	used  uint32 // seconds since 1970
	heat  uint8
	round uint8 // in which it was seen last
}

const diskMaxHeat = 3

func newDiskIndex() diskIndex { return diskIndex{at: map[diskName]int32{}} }

// add enters a file. One that is known is hotter when it was used since:
// another mount may have done that.
func (x *diskIndex) add(name diskName, size int64, used uint32) {
	if i, ok := x.at[name]; ok {
		s := &x.slots[i]
		x.bytes += size - int64(s.size)
		s.size, s.round = uint32(size), x.round
		if used > s.used {
			s.used, s.heat = used, max(s.heat, 1)
		}
		return
	}
	var i int32
	if n := len(x.free); n > 0 {
		i, x.free = x.free[n-1], x.free[:n-1]
	} else {
		i = int32(len(x.slots))
		x.slots = append(x.slots, diskSlot{})
	}
	x.slots[i] = diskSlot{name: name, size: uint32(size), used: used, round: x.round}
	x.at[name] = i
	x.bytes += size
}

func (x *diskIndex) has(name diskName) bool { _, ok := x.at[name]; return ok }

// use notes a use and reports whether it is worth telling other mounts: not
// when the last time was within a minute.
func (x *diskIndex) use(name diskName, now uint32) (tell bool) {
	i, ok := x.at[name]
	if !ok {
		return false
	}
	s := &x.slots[i]
	s.heat = min(s.heat+1, diskMaxHeat)
	if now < s.used+60 {
		return false
	}
	s.used = now
	return true
}

func (x *diskIndex) remove(name diskName) {
	i, ok := x.at[name]
	if !ok {
		return
	}
	x.bytes -= int64(x.slots[i].size)
	x.slots[i] = diskSlot{}
	x.free = append(x.free, i)
	delete(x.at, name)
}

// evict removes the entry that is worth least and returns it.
func (x *diskIndex) evict() (name diskName, size int64, ok bool) {
	for len(x.at) > 0 {
		if x.hand >= len(x.slots) {
			x.hand = 0
		}
		s := &x.slots[x.hand]
		if s.size > 0 && s.heat == 0 {
			name, size = s.name, int64(s.size)
			x.remove(name)
			x.hand++
			return name, size, true
		}
		if s.size > 0 {
			s.heat--
		}
		x.hand++
	}
	return name, 0, false
}

// beginRound begins a scan; endRound removes what it did not see.
func (x *diskIndex) beginRound() { x.round++ }

func (x *diskIndex) endRound() {
	for i := range x.slots {
		if s := &x.slots[i]; s.size > 0 && s.round != x.round {
			x.remove(s.name)
		}
	}
}
