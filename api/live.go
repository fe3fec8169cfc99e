package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/protocol"
)

const (
	// maxPresenceUsers is how many users one request may ask about: a roster.
	maxPresenceUsers = 1000
	// maxConnBytes bounds a connection's ID; ours have 25 characters.
	maxConnBytes = 64
	// maxWatched bounds the users of one `watch`, as on a socket.
	maxWatched = 500
	// ticketTTL is how long a ticket may be taken: the time between two requests
	// of one page.
	ticketTTL = 10 * time.Second
	// serverTicketLife is how long a socket lives that was opened with a ticket of
	// a server key, which has no end of its own.
	serverTicketLife = time.Hour
)

var (
	errNoConn = &problem{status: http.StatusNotFound, code: protocol.ErrNotFound, detail: "the user has no connection with this ID"}
	errConn   = invalid("conn must be the connection's ID, from hello or a poll's answer")
)

// presenceView is a user's presence as others see it. Focus is for the team's
// back end, and for all only where that is switched on.
type presenceView struct {
	User     string    `json:"user"`
	Status   string    `json:"status"`
	LastSeen string    `json:"last_seen,omitzero"`
	Focus    *[]string `json:"focus,omitzero"`
}

// GET /v1/presence
func (a *API) presence(ctx context.Context, c *gin.Context, by chat.Actor) ([]byte, error) {
	users, err := presenceUsers(c)
	if err != nil {
		return nil, err
	}
	found, err := a.store.Lookup(ctx, users)
	if err != nil {
		return nil, err
	}
	out := struct {
		Presence []presenceView `json:"presence"`
	}{make([]presenceView, len(found))}
	for i, p := range found {
		v := presenceView{User: p.User, Status: "offline"}
		if p.Online {
			v.Status = "online"
		} else if p.LastSeen != 0 {
			v.LastSeen = formatTime(time.UnixMilli(p.LastSeen))
		}
		if by.Server || a.showFocus {
			focus := p.Focus
			if focus == nil {
				focus = []string{}
			}
			v.Focus = &focus
		}
		out.Presence[i] = v
	}
	return json.Marshal(out)
}

// presenceUsers reads ?user=a&user=b. Who is named twice is told once.
func presenceUsers(c *gin.Context) ([]string, error) {
	q, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return nil, malformed("the query is badly encoded")
	}
	named := q["user"]
	if len(q) != 1 || len(named) == 0 {
		return nil, invalid("user must be given, once for each user, and nothing else")
	}
	if len(named) > maxPresenceUsers {
		return nil, invalid("at most " + strconv.Itoa(maxPresenceUsers) + " users at once")
	}
	users := make([]string, 0, len(named))
	seen := make(map[string]bool, len(named))
	for _, u := range named {
		if !protocol.ValidUser(u) {
			return nil, invalid(userRule)
		}
		if !seen[u] {
			seen[u] = true
			users = append(users, u)
		}
	}
	return users, nil
}

// POST /v1/focus
func (a *API) focus(ctx context.Context, c *gin.Context, by chat.Actor) error {
	return a.command(ctx, c, by, chat.CommandFocus)
}

// POST /v1/typing
func (a *API) typing(ctx context.Context, c *gin.Context, by chat.Actor) error {
	return a.command(ctx, c, by, chat.CommandTyping)
}

// command hands what a client says over HTTP to the gateway that has its
// connection. What that gateway finds wrong with it comes on the connection.
func (a *API) command(ctx context.Context, c *gin.Context, by chat.Actor, do chat.CommandKind) error {
	var in struct {
		Conn string  `json:"conn"`
		Room *string `json:"room"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readJSON(c, by, buf, &in); err != nil {
		return err
	}
	cmd := chat.Command{Conn: in.Conn, Do: do}
	switch {
	case in.Room != nil && protocol.ValidRoom(*in.Room):
		cmd.Room = *in.Room
	case in.Room == nil && do == chat.CommandFocus: // looks at none
	default:
		return invalid("room: " + roomRule)
	}
	return a.tell(ctx, c, by, cmd)
}

// POST /v1/delivered
func (a *API) delivered(ctx context.Context, c *gin.Context, by chat.Actor) error {
	var in struct {
		Conn string `json:"conn"`
		Room string `json:"room"`
		ID   string `json:"id"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readJSON(c, by, buf, &in); err != nil {
		return err
	}
	if !protocol.ValidRoom(in.Room) {
		return invalid("room: " + roomRule)
	}
	id, err := protocol.ParseID(in.ID)
	if err != nil || id.IsZero() {
		return invalid("id must be the ID of a message")
	}
	return a.tell(ctx, c, by, chat.Command{Conn: in.Conn, Do: chat.CommandDelivered, Room: in.Room, ID: id})
}

// POST /v1/watch
func (a *API) watch(ctx context.Context, c *gin.Context, by chat.Actor) error {
	var in struct {
		Conn  string    `json:"conn"`
		Users *[]string `json:"users"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readJSON(c, by, buf, &in); err != nil {
		return err
	}
	if in.Users == nil || len(*in.Users) > maxWatched {
		return invalid("users must be a list of at most " + strconv.Itoa(maxWatched) + " users")
	}
	for _, u := range *in.Users {
		if !protocol.ValidUser(u) {
			return invalid(userRule)
		}
	}
	return a.tell(ctx, c, by, chat.Command{Conn: in.Conn, Do: chat.CommandWatch, Users: *in.Users})
}

// tell hands a command over, if the user may say such a thing at all.
func (a *API) tell(ctx context.Context, c *gin.Context, by chat.Actor, cmd chat.Command) error {
	if cmd.Conn == "" || len(cmd.Conn) > maxConnBytes {
		return errConn
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	if cmd.Room != "" {
		// As the user, also with a server key: it is the user's connection.
		if _, _, err := a.store.Room(ctx, chat.Actor{User: by.User}, cmd.Room); err != nil {
			return err
		}
	}
	if err := a.store.Command(ctx, by.User, cmd); errors.Is(err, chat.ErrNoConn) {
		return errNoConn
	} else if err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

// POST /v1/tickets
func (a *API) ticket(ctx context.Context, c *gin.Context, by chat.Actor) error {
	claims, err := a.claims(c.Request) // once more: the ticket ends when the token does
	if err != nil {
		return err
	}
	t := chat.Ticket{User: by.User, Server: claims.Server, IssuedAt: claims.IssuedAt, Expires: claims.Expires}
	if t.Expires == 0 {
		t.Expires = time.Now().Add(serverTicketLife).Unix()
	}
	t.Key = uint64(claims.Key) // it ends with the key, too
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	id, err := a.store.IssueTicket(ctx, t, ticketTTL)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusCreated, struct {
		Ticket  string `json:"ticket"`
		Expires int64  `json:"expires_in_ms"`
	}{id, ticketTTL.Milliseconds()})
}
