package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

// Bounds of rooms and their pages.
const (
	maxNameChars   = 200
	maxNewMembers  = 1_000 // in one request; more are added one by one
	defaultRooms   = 50
	maxRooms       = 200
	defaultMembers = 100
	maxMembers     = 1_000
)

// roomView is a room as everybody sees it.
type roomView struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Created     string    `json:"created"`
	MemberCount int       `json:"member_count"`
	Head        string    `json:"head"`
	N           uint64    `json:"n"`
	Role        chat.Role `json:"role,omitzero"` // the caller's
}

func viewOf(r chat.Room, role chat.Role) roomView {
	return roomView{ID: r.ID, Name: r.Name, Created: formatTime(r.Created), MemberCount: r.Members, Head: r.Head.String(), N: r.N, Role: role}
}

// myRoomView is a room as one of its members sees it.
type myRoomView struct {
	roomView
	Read   string `json:"read"`
	ReadN  uint64 `json:"read_n"`
	Unread uint64 `json:"unread"`
}

// POST /v1/rooms
func (a *API) createRoom(ctx context.Context, c *gin.Context, by chat.Actor) error {
	var in struct {
		ID      string   `json:"id"`
		Name    string   `json:"name"`
		Members []string `json:"members"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readJSON(c, by, buf, &in); err != nil {
		return err
	}
	if in.ID == "" {
		in.ID = newULID(time.Now())
	}
	if !protocol.ValidRoom(in.ID) {
		return invalid("id: " + roomRule)
	}
	if !validName(in.Name) {
		return invalid("name may have " + strconv.Itoa(maxNameChars) + " characters, and no control characters")
	}
	if len(in.Members) > maxNewMembers {
		return invalid("members: at most " + strconv.Itoa(maxNewMembers) + " at once; add the others one by one")
	}
	members := make([]string, 0, len(in.Members))
	seen := map[string]bool{by.User: true} // the owner, in any case
	for _, name := range in.Members {
		if !protocol.ValidUser(name) {
			return invalid("members: " + userRule)
		}
		if !seen[name] {
			seen[name] = true
			members = append(members, name)
		}
	}
	// A room is never removed, so it counts as a message does.
	if p := a.overRate(by, time.Now()); p != nil {
		return p
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	room, err := a.store.CreateRoom(ctx, by, in.ID, in.Name, members)
	if err != nil {
		return err
	}
	role := chat.RoleOwner
	if by.User == "" {
		role = "" // a server key's room: nobody owns it, server keys run it
	}
	c.Writer.Header().Set("Location", "/v1/rooms/"+room.ID)
	return writeJSON(c, http.StatusCreated, viewOf(room, role))
}

func validName(s string) bool {
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return utf8.RuneCountInString(s) <= maxNameChars
}

// GET /v1/rooms
func (a *API) listRooms(ctx context.Context, c *gin.Context, by chat.Actor) ([]byte, error) {
	limit, cursor, err := page(c, defaultRooms, maxRooms)
	if err != nil {
		return nil, err
	}
	if cursor != "" && !protocol.ValidRoom(cursor) {
		return nil, errCursor
	}
	rooms, rev, next, err := a.store.Rooms(ctx, by.User, cursor, limit)
	if err != nil {
		return nil, err
	}
	out := struct {
		Rooms    []myRoomView `json:"rooms"`
		RoomsRev uint64       `json:"rooms_rev"`
		Next     string       `json:"next,omitzero"`
	}{make([]myRoomView, len(rooms)), rev, next}
	for i, r := range rooms {
		out.Rooms[i] = myRoomView{viewOf(r.Room, r.Role), r.Read.String(), r.ReadN, r.Unread}
	}
	return json.Marshal(out)
}

// GET /v1/rooms/{room}
func (a *API) getRoom(ctx context.Context, c *gin.Context, by chat.Actor) error {
	id, err := pathRoom(c)
	if err != nil {
		return err
	}
	room, role, err := a.store.Room(ctx, by, id)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, viewOf(room, role))
}

// page reads ?limit= and ?cursor=.
func page(c *gin.Context, byDefault, most int) (limit int, cursor string, err error) {
	q, err := query(c, "limit", "cursor")
	if err != nil {
		return 0, "", err
	}
	if limit, err = limitOf(q, byDefault, most); err != nil {
		return 0, "", err
	}
	cursor, err = cursorOf(q)
	return limit, cursor, err
}
