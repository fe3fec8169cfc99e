package follow

import (
	"hash/maphash"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/index"
)

// people are the users there are, found by name and by number.
type people struct {
	list  []*user // by user.num; nil where free
	free  []uint32
	index index.Index
	seed  maphash.Seed
}

// named returns the user of this name, nil when there is none.
func (p *people) named(name string) *user {
	num, ok := p.index.Find(maphash.String(p.seed, name), func(num uint32) bool { return p.list[num].name == name })
	if !ok {
		return nil
	}
	return p.list[num]
}

// add takes in a user that is not there and gives it a number.
func (p *people) add(u *user) {
	if n := len(p.free); n > 0 {
		u.num = p.free[n-1]
		p.free = p.free[:n-1]
		p.list[u.num] = u
	} else {
		u.num = uint32(len(p.list))
		p.list = append(p.list, u)
	}
	p.index.Add(p.hashOf(u.num), u.num, p.hashOf)
}

func (p *people) remove(u *user) {
	p.index.Remove(p.hashOf(u.num), u.num, p.hashOf)
	p.list[u.num] = nil
	p.free = append(p.free, u.num)
}

func (p *people) hashOf(num uint32) uint64 { return maphash.String(p.seed, p.list[num].name) }

// places are the rooms that are followed, found by name and by number.
type places struct {
	list  []*room // by room.num; nil where free
	free  []edge.RoomNum
	index index.Index
	seed  maphash.Seed
}

// restingNums is how many room numbers rest before one is used again, so that
// what a loop still says about a room that was dropped is not taken for another.
const restingNums = 1024

// named returns the room of this name, nil when it is not followed.
func (p *places) named(name string) *room {
	num, ok := p.index.Find(maphash.String(p.seed, name), func(num uint32) bool { return p.list[num].name == name })
	if !ok {
		return nil
	}
	return p.list[num]
}

// add takes in a room that is not there and gives it a number.
func (p *places) add(r *room) {
	if len(p.free) > restingNums {
		r.num = p.free[0]
		p.free = p.free[1:]
		p.list[r.num] = r
	} else {
		r.num = edge.RoomNum(len(p.list))
		p.list = append(p.list, r)
	}
	p.index.Add(p.hashOf(uint32(r.num)), uint32(r.num), p.hashOf)
}

func (p *places) remove(r *room) {
	p.index.Remove(p.hashOf(uint32(r.num)), uint32(r.num), p.hashOf)
	p.list[r.num] = nil
	p.free = append(p.free, r.num)
}

func (p *places) hashOf(num uint32) uint64 { return maphash.String(p.seed, p.list[num].name) }
