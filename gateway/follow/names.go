package follow

import (
	"hash/maphash"

	"github.com/madang-chat/madang/gateway/index"
)

// table is the users there are, or the rooms that are followed: found by name, and
// by the number that they get here.
type table[T any] struct {
	list    []*T // by number; nil where free
	free    []uint32
	resting int // how many free numbers rest before one is used again
	name    func(*T) string
	index   index.Index
	seed    maphash.Seed
}

func newTable[T any](resting int, name func(*T) string) table[T] {
	return table[T]{resting: resting, name: name, seed: maphash.MakeSeed()}
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
	return num
}

func (t *table[T]) remove(num uint32) {
	t.index.Remove(t.hashOf(num), num, t.hashOf)
	t.list[num] = nil
	t.free = append(t.free, num)
}

func (t *table[T]) hashOf(num uint32) uint64 {
	return maphash.String(t.seed, t.name(t.list[num]))
}
