package ledger

import "slices"

// A reader's holes are disjoint, ascending ranges of its log. Readers without any
// have no entry in the map.

func (b *Book) addHole(id ReaderID, from, to uint32) {
	holes := append(b.holes[id], hole{from, to})
	slices.SortFunc(holes, func(a, c hole) int { return int(a.from) - int(c.from) })
	merged := holes[:1]
	for _, h := range holes[1:] {
		if last := &merged[len(merged)-1]; h.from <= last.to {
			last.to = max(last.to, h.to)
		} else {
			merged = append(merged, h)
		}
	}
	b.setHoles(id, merged)
}

func (b *Book) setHoles(id ReaderID, holes []hole) {
	if len(holes) == 0 {
		delete(b.holes, id)
		return
	}
	b.holes[id] = holes
	b.readers[id].troubled = true
}

// missing says whether the reader has not got the entry at index at.
func (b *Book) missing(id ReaderID, at uint32) bool {
	if !b.readers[id].troubled {
		return false
	}
	return inHoles(b.holes[id], at) || inHoles(b.told[id], at)
}

func inHoles(holes []hole, at uint32) bool {
	for _, h := range holes {
		if h.from <= at && at < h.to {
			return true
		}
	}
	return false
}

// fill takes the entry at index at out of the reader's holes.
func (b *Book) fill(id ReaderID, at uint32) {
	b.setHoles(id, without(b.holes[id], at))
	if told := without(b.told[id], at); len(told) > 0 {
		b.told[id] = told
	} else {
		delete(b.told, id)
	}
}

func without(holes []hole, at uint32) []hole {
	for i, h := range holes {
		if at < h.from || at >= h.to {
			continue
		}
		rest := slices.Delete(slices.Clone(holes), i, i+1)
		if at+1 < h.to {
			rest = slices.Insert(rest, i, hole{at + 1, h.to})
		}
		if h.from < at {
			rest = slices.Insert(rest, i, hole{h.from, at})
		}
		return rest
	}
	return holes
}
