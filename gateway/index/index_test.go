package index_test

import (
	"math/rand/v2"
	"testing"

	"github.com/madang-chat/madang/gateway/index"
)

// table is names found by an Index, beside the map that it must agree with. Few
// hashes and few names: everything collides.
type table struct {
	t     testing.TB
	names []uint16 // by number
	free  []uint32
	x     index.Index
	want  map[uint16]uint32
}

func hash(name uint16) uint64 { return uint64(name%13) * 0x9e3779b97f4a7c15 >> (name % 3) }

func (b *table) hashOf(num uint32) uint64 { return hash(b.names[num]) }

func (b *table) find(name uint16) (uint32, bool) {
	return b.x.Find(hash(name), func(num uint32) bool { return b.names[num] == name })
}

func (b *table) toggle(name uint16) {
	if num, there := b.want[name]; there {
		b.x.Remove(hash(name), num, b.hashOf)
		delete(b.want, name)
		b.free = append(b.free, num)
		return
	}
	num := uint32(len(b.names))
	if n := len(b.free); n > 0 {
		num, b.free = b.free[n-1], b.free[:n-1]
		b.names[num] = name
	} else {
		b.names = append(b.names, name)
	}
	b.x.Add(hash(name), num, b.hashOf)
	b.want[name] = num
}

func (b *table) agrees(upTo uint16) {
	b.t.Helper()
	if b.x.Len() != len(b.want) {
		b.t.Fatalf("%d numbers, want %d", b.x.Len(), len(b.want))
	}
	for name := range upTo {
		num, ok := b.find(name)
		if want, there := b.want[name]; ok != there || num != want {
			b.t.Fatalf("%d is found as %d, %v; want %d, %v", name, num, ok, want, there)
		}
	}
}

func TestAgreesWithAMap(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		b := &table{t: t, want: map[uint16]uint32{}}
		names := uint16(1 + r.IntN(200))
		for range 1000 {
			b.toggle(uint16(r.IntN(int(names))))
			if r.IntN(20) == 0 {
				b.agrees(names)
			}
		}
		for name := range b.want { // down to nothing
			b.toggle(name)
			b.agrees(names)
		}
	}
}

func TestRemovingWhatIsNotThere(t *testing.T) {
	b := &table{t: t, want: map[uint16]uint32{}}
	b.x.Remove(hash(1), 0, b.hashOf)
	b.toggle(1)
	b.toggle(14)
	b.x.Remove(hash(27), 7, b.hashOf)
	b.agrees(30)
}
