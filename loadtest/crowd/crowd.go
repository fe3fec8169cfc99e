// Package crowd says who the tester's users are, which rooms there are, and who
// is in which: by arithmetic, so that every process agrees on a million
// memberships without anybody holding a list of them.
//
// All seats of all rooms are numbered through, room after room; seat s belongs to
// user s mod Users. A user's rooms are therefore found by stepping through its
// seats, and come in ascending order.
package crowd

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
)

// Crowd is a population. It is immutable once made and safe for all goroutines.
type Crowd struct {
	prefix string
	users  int
	rooms  int
	seats  int
	each   int   // members of every room, when they are all the same size
	starts []int // first seat of every room, and the end, when they are not
}

// Shape describes a population; it is what travels between processes.
type Shape struct {
	Prefix string // of all names: unique to a run
	Users  int
	Rooms  int
	Each   int   // members per room; 0: Sizes
	Sizes  []int // members of each room
}

// Limits of a population: beyond them a number is a typing error. A send and a
// room are numbered in 32 bits.
const (
	MaxUsers = 10_000_000
	MaxRooms = 10_000_000
)

// New checks the shape and returns the population.
func New(s Shape) (*Crowd, error) {
	c := &Crowd{prefix: s.Prefix, users: s.Users, rooms: s.Rooms, each: s.Each}
	switch {
	case s.Users < 1 || s.Users > MaxUsers:
		return nil, fmt.Errorf("%d clients: give between 1 and %d", s.Users, MaxUsers)
	case s.Rooms < 0 || s.Rooms > MaxRooms:
		return nil, fmt.Errorf("%d rooms: give between 0 and %d", s.Rooms, MaxRooms)
	case s.Prefix == "" || len(s.Prefix) > 40:
		return nil, errors.New("the prefix of names must have 1–40 characters")
	}
	if len(s.Sizes) == 0 {
		if s.Rooms > 0 && (s.Each < 1 || s.Each > s.Users) {
			return nil, fmt.Errorf("%d members per room with %d clients: a room has between 1 and all of them", s.Each, s.Users)
		}
		c.seats = s.Rooms * s.Each
		return c, nil
	}
	if len(s.Sizes) != s.Rooms {
		return nil, fmt.Errorf("sizes of %d rooms, but %d rooms", len(s.Sizes), s.Rooms)
	}
	c.each = 0
	c.starts = make([]int, 0, s.Rooms+1)
	for room, size := range s.Sizes {
		if size < 1 || size > s.Users {
			return nil, fmt.Errorf("room %d with %d members of %d clients", room, size, s.Users)
		}
		c.starts = append(c.starts, c.seats)
		c.seats += size
	}
	c.starts = append(c.starts, c.seats)
	return c, nil
}

// Users returns how many users there are; they are numbered from 0.
func (c *Crowd) Users() int { return c.users }

// Rooms returns how many rooms there are; they are numbered from 0.
func (c *Crowd) Rooms() int { return c.rooms }

// Seats returns how many memberships there are.
func (c *Crowd) Seats() int { return c.seats }

// Size returns how many members a room has.
func (c *Crowd) Size(room int) int {
	if c.starts == nil {
		return c.each
	}
	return c.starts[room+1] - c.starts[room]
}

// Member returns the k-th member of a room.
func (c *Crowd) Member(room, k int) int { return (c.start(room) + k) % c.users }

// Seat returns the room of a seat, and which of its members sits there: drawing
// seats at random draws rooms by their size.
func (c *Crowd) Seat(seat int) (room, k int) {
	room = c.roomAt(seat)
	return room, seat - c.start(room)
}

// AppendRoomsOf appends the numbers of a user's rooms, ascending.
func (c *Crowd) AppendRoomsOf(dst []uint32, user int) []uint32 {
	for seat := user; seat < c.seats; seat += c.users {
		dst = append(dst, uint32(c.roomAt(seat)))
	}
	return dst
}

// User returns a user's name.
func (c *Crowd) User(user int) string { return c.prefix + "-u" + strconv.Itoa(user) }

// Room returns a room's ID.
func (c *Crowd) Room(room int) string { return c.prefix + "-r" + strconv.Itoa(room) }

// RoomNumber is the inverse of Room; ok is false for a room of somebody else.
func (c *Crowd) RoomNumber(id []byte) (room uint32, ok bool) {
	p := len(c.prefix)
	if len(id) < p+3 || len(id) > p+2+8 || string(id[:p]) != c.prefix || id[p] != '-' || id[p+1] != 'r' {
		return 0, false
	}
	for _, digit := range id[p+2:] {
		if digit -= '0'; digit > 9 {
			return 0, false
		}
		room = room*10 + uint32(digit)
	}
	return room, int(room) < c.rooms
}

func (c *Crowd) start(room int) int {
	if c.starts == nil {
		return room * c.each
	}
	return c.starts[room]
}

func (c *Crowd) roomAt(seat int) int {
	if c.starts == nil {
		return seat / c.each
	}
	return sort.SearchInts(c.starts, seat+1) - 1
}
