package follow

import (
	"hash/maphash"
	"iter"

	"github.com/madang-chat/madang/gateway/index"
)

// table is the users there are, or the rooms that are followed: found by name, by
// the number that they get here, and by the partition that they are in.
type table[T any] struct {
	list    []*T // by number; nil where free
	free    []uint32
	parts   [][]uint32 // by partition: the numbers of those in it
	resting int        // how many free numbers rest before one is used again
	name    func(*T) string
	sub     func(*T) *subscription
	index   index.Index
	seed    maphash.Seed
}

func newTable[T any](resting int, name func(*T) string, sub func(*T) *subscription) table[T] {
	return table[T]{resting: resting, name: name, sub: sub, seed: maphash.MakeSeed()}
}

// named returns what has this name, nil when there is nothing.
func (t *table[T]) named(name string) *T {
	num, ok := t.index.Find(maphash.String(t.seed, name), func(num uint32) bool { return t.name(t.list[num]) == name })
	if !ok {
		return nil
	}
	return t.list[num]
}

// add takes in what is not there and returns its number.
func (t *table[T]) add(what *T) (num uint32) {
	if len(t.free) > t.resting {
		num, t.free = t.free[0], t.free[1:]
		t.list[num] = what
	} else {
		num = uint32(len(t.list))
		t.list = append(t.list, what)
	}
	t.index.Add(t.hashOf(num), num, t.hashOf)
	s := t.sub(what)
	for len(t.parts) <= int(s.partition) {
		t.parts = append(t.parts, nil)
	}
	s.place = uint32(len(t.parts[s.partition]))
	t.parts[s.partition] = append(t.parts[s.partition], num)
	return num
}

func (t *table[T]) remove(num uint32) {
	t.index.Remove(t.hashOf(num), num, t.hashOf)
	s := t.sub(t.list[num])
	part := t.parts[s.partition]
	last := len(part) - 1
	part[s.place] = part[last]
	t.sub(t.list[part[last]]).place = s.place
	t.parts[s.partition] = part[:last]
	t.list[num] = nil
	t.free = append(t.free, num)
}

func (t *table[T]) hashOf(num uint32) uint64 {
	return maphash.String(t.seed, t.name(t.list[num]))
}

// in walks over what is in a partition.
func (t *table[T]) in(partition int) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		if partition >= len(t.parts) {
			return
		}
		for _, num := range t.parts[partition] {
			if !yield(t.list[num]) {
				return
			}
		}
	}
}

// on walks over what is on some links. What is on others is not looked at: a gateway
// has hundreds of thousands of users and rooms, and in a Cluster hundreds of links,
// which break together. All of a partition is on one link.
func (t *table[T]) on(link func(n int) bool) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for part, nums := range t.parts {
			if len(nums) == 0 || !link(int(t.sub(t.list[nums[0]]).link)) {
				continue
			}
			for what := range t.in(part) {
				if !yield(what) {
					return
				}
			}
		}
	}
}
