package crowd_test

import (
	"slices"
	"testing"

	"github.com/madang-chat/madang/loadtest/crowd"
)

func TestMembersAndRoomsAgree(t *testing.T) {
	shapes := map[string]crowd.Shape{
		"one room for all":     {Users: 7, Rooms: 1, Each: 7},
		"everyone in one room": {Users: 12, Rooms: 4, Each: 3},
		"several rooms each":   {Users: 10, Rooms: 9, Each: 7},
		"fewer seats":          {Users: 10, Rooms: 2, Each: 3},
		"zipf":                 {Users: 30, Rooms: 8, Sizes: crowd.ZipfSizes(8, 20, 1)},
		"no rooms":             {Users: 3},
	}
	for name, shape := range shapes {
		t.Run(name, func(t *testing.T) {
			shape.Prefix = "t"
			c, err := crowd.New(shape)
			if err != nil {
				t.Fatal(err)
			}
			var want, got [][2]int
			for room := range c.Rooms() {
				seen := map[int]bool{}
				for k := range c.Size(room) {
					member := c.Member(room, k)
					if seen[member] {
						t.Fatalf("user %d is in room %d twice", member, room)
					}
					seen[member] = true
					want = append(want, [2]int{member, room})
				}
			}
			for user := range c.Users() {
				rooms := c.AppendRoomsOf(nil, user)
				if !slices.IsSorted(rooms) {
					t.Fatalf("rooms of %d are not ascending: %v", user, rooms)
				}
				for _, room := range rooms {
					got = append(got, [2]int{user, int(room)})
				}
			}
			order := func(a, b [2]int) int { return slices.Compare(a[:], b[:]) }
			slices.SortFunc(want, order)
			slices.SortFunc(got, order)
			if !slices.Equal(got, want) || len(want) != c.Seats() {
				t.Errorf("by user %v, by room %v, seats %d", got, want, c.Seats())
			}
		})
	}
}

func TestRoomNumberIsTheInverseOfRoom(t *testing.T) {
	c, err := crowd.New(crowd.Shape{Prefix: "lt-1", Users: 2, Rooms: 1_000_000, Each: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, 9, 10, 999_999} {
		if got, ok := c.RoomNumber([]byte(c.Room(room))); !ok || int(got) != room {
			t.Errorf("room %d came back as %d, %v", room, got, ok)
		}
	}
	for _, foreign := range []string{"", "lt-1-r", "lt-1-r1000000", "lt-2-r1", "lt-1-rx", "lt-1-u1", "lt-1-r99999999999"} {
		if got, ok := c.RoomNumber([]byte(foreign)); ok {
			t.Errorf("%q taken for room %d", foreign, got)
		}
	}
}

func TestAbsurdNumbersAreRefused(t *testing.T) {
	for name, shape := range map[string]crowd.Shape{
		"no users":         {Prefix: "t"},
		"too many users":   {Prefix: "t", Users: 1 << 40},
		"negative rooms":   {Prefix: "t", Users: 1, Rooms: -1},
		"too many members": {Prefix: "t", Users: 5, Rooms: 1, Each: 6},
		"no members":       {Prefix: "t", Users: 5, Rooms: 1},
		"no prefix":        {Users: 5},
	} {
		if _, err := crowd.New(shape); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
