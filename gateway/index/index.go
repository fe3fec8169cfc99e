// Package index finds things by name where a Go map would be too large: a table
// of users costs a map 26 to 38 bytes a user beside the user itself, and an Index
// about 7.
//
// An Index holds numbers, and nothing of what they stand for: the caller keeps
// that in a slice of its own, says by which 64-bit hash a number is to be found,
// and tells apart what shares a hash. It is open addressing with linear probing,
// at most three quarters full, and removal by shifting back (Knuth, The Art of
// Computer Programming 3, 6.4, algorithm R), so that it has no tombstones. It is
// not safe for concurrent use. Hashes should be seeded where others choose names.
package index

// Index is a set of numbers below 2^32-1, found by hash. The zero Index is empty.
type Index struct {
	slots []uint32 // a number plus one; 0 is free. The length is a power of two
	used  int
}

const smallest = 8

// Len is how many numbers there are.
func (x *Index) Len() int { return x.used }

// Find returns the number with this hash that is what is looked for.
func (x *Index) Find(hash uint64, is func(num uint32) bool) (num uint32, ok bool) {
	if x.used == 0 {
		return 0, false
	}
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; x.slots[i] != 0; i = (i + 1) & mask {
		if num := x.slots[i] - 1; is(num) {
			return num, true
		}
	}
	return 0, false
}

// Add puts in a number that is not there yet. hashOf tells the hashes of the
// numbers that are, for when the table has to grow.
func (x *Index) Add(hash uint64, num uint32, hashOf func(num uint32) uint64) {
	if 4*(x.used+1) > 3*len(x.slots) {
		x.resize(max(smallest, 2*len(x.slots)), hashOf)
	}
	x.put(hash, num)
	x.used++
}

// Remove takes a number out, if it is there. It may ask hashOf for the others',
// and for this one's.
func (x *Index) Remove(hash uint64, num uint32, hashOf func(num uint32) uint64) {
	if x.used == 0 {
		return
	}
	mask := uint64(len(x.slots) - 1)
	hole := hash & mask
	for x.slots[hole] != num+1 {
		if x.slots[hole] == 0 {
			return
		}
		hole = (hole + 1) & mask
	}
	// What follows without a gap may stand there only because the hole was taken.
	for i := (hole + 1) & mask; x.slots[i] != 0; i = (i + 1) & mask {
		home := hashOf(x.slots[i]-1) & mask
		if (i-home)&mask >= (i-hole)&mask {
			x.slots[hole], hole = x.slots[i], i
		}
	}
	x.slots[hole] = 0
	x.used--
	if len(x.slots) > smallest && 8*x.used < len(x.slots) {
		x.resize(len(x.slots)/2, hashOf)
	}
}

func (x *Index) resize(n int, hashOf func(num uint32) uint64) {
	old := x.slots
	x.slots = make([]uint32, n)
	for _, s := range old {
		if s != 0 {
			x.put(hashOf(s-1), s-1)
		}
	}
}

func (x *Index) put(hash uint64, num uint32) {
	mask := uint64(len(x.slots) - 1)
	i := hash & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = num + 1
}
