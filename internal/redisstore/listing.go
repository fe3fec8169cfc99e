package redisstore

import (
	"context"
	"slices"
	"sync"
)

const (
	// largeList is from how many rooms on a user's index is not read again for each page
	// of the list: that holds Redis up for 0.5 ms at a thousand rooms, and for 10 ms at ten
	// thousand, which are two hundred pages.
	largeList = 1000
	// maxListed bounds the rooms in all such lists that are kept, which take some 50 bytes
	// each: the lists of sixteen users with ten thousand rooms, or of 160 with a thousand.
	// Who has none is read again.
	maxListed = 160_000
)

// roomList is which rooms a user is in, by their index, in the order of their IDs. It is
// what the index says as long as rooms_rev stands.
type roomList struct {
	rev   uint64
	rooms []string // nobody changes them
}

// roomLists are the large ones, as a page was made of each lately.
type roomLists struct {
	mu     sync.Mutex
	of     map[string]roomList // by user
	listed int                 // rooms in all of them
}

func (l *roomLists) known(user string) (roomList, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.of[user]
	return list, ok
}

func (l *roomLists) learn(user string, list roomList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(user)
	if len(list.rooms) < largeList {
		return
	}
	for some := range l.of {
		if l.listed+len(list.rooms) <= maxListed {
			break
		}
		l.forget(some)
	}
	if l.of == nil {
		l.of = make(map[string]roomList)
	}
	l.of[user] = list
	l.listed += len(list.rooms)
}

// forget takes a user's list away, if there is one; mu is held.
func (l *roomLists) forget(user string) {
	l.listed -= len(l.of[user].rooms)
	delete(l.of, user)
}

// roomList reads a user's list, with the read markers unless read is false: then it is as
// known, and they are to be read still.
func (s *Store) roomList(ctx context.Context, user string) (list roomList, markers map[string]marker, read bool, err error) {
	part := s.keys.partition(user)
	key := s.keys.user(part, user).rooms
	if known, ok := s.lists.known(user); ok {
		reply, err := s.do(ctx, reads, newCommand(part, "hget", key, "rev"))
		if err != nil {
			return list, nil, false, err
		}
		if text(reply) == formatUint(known.rev) {
			return known, nil, false, nil
		}
	}
	reply, err := s.do(ctx, reads, newCommand(part, "hgetall", key))
	if err != nil {
		return list, nil, false, err
	}
	index, err := parseIndex(reply)
	if err != nil {
		return list, nil, false, err
	}
	list = roomList{index.rev, make([]string, len(index.rooms))}
	for i, r := range index.rooms {
		list.rooms[i] = r.Room
	}
	slices.Sort(list.rooms)
	s.lists.learn(user, list)
	return list, index.read, true, nil
}

// newMarkersCall reads a user's read markers of rooms; parseMarkers its answer.
func (s *Store) newMarkersCall(user string, rooms []string) *call {
	part := s.keys.partition(user)
	args := append(make([]any, 0, 2+len(rooms)), "hmget", s.keys.user(part, user).rooms)
	for _, room := range rooms {
		args = append(args, "m:"+room)
	}
	return newCommand(part, args...)
}

func parseMarkers(rooms []string, c *call) (map[string]marker, error) {
	reply, err := c.result()
	if err != nil {
		return nil, err
	}
	values, err := list("hmget", reply, len(rooms))
	if err != nil {
		return nil, err
	}
	markers := make(map[string]marker, len(rooms))
	for i, room := range rooms {
		if markers[room], err = parseMarker(text(values[i])); err != nil {
			return nil, err
		}
	}
	return markers, nil
}
