package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"
	"github.com/go-json-experiment/json"

	"github.com/madang-chat/madang/internal/chat"
)

type memberView struct {
	User string    `json:"user"`
	Role chat.Role `json:"role"`
	// Of rooms with receipts only.
	Read      string `json:"read,omitzero"`
	Delivered string `json:"delivered,omitzero"`
}

// GET /v1/rooms/{room}/members
func (a *API) listMembers(ctx context.Context, c *gin.Context, by chat.Actor) ([]byte, error) {
	room, err := pathRoom(c)
	if err != nil {
		return nil, err
	}
	limit, cursor, err := page(c, defaultMembers, maxMembers)
	if err != nil {
		return nil, err
	}
	members, next, err := a.store.Members(ctx, by, room, cursor, limit)
	if errors.Is(err, chat.ErrBadPosition) {
		return nil, errCursor
	}
	if err != nil {
		return nil, err
	}
	out := struct {
		Members []memberView `json:"members"`
		Next    string       `json:"next,omitzero"`
	}{make([]memberView, len(members)), next}
	for i, m := range members {
		out.Members[i] = memberView{User: m.User, Role: m.Role}
		if m.Marked {
			out.Members[i].Read, out.Members[i].Delivered = m.Read.String(), m.Delivered.String()
		}
	}
	return json.Marshal(out)
}

// PUT /v1/rooms/{room}/members/{user}. Without a role, who is a member already
// keeps theirs: inviting an admin again must not take the role away.
func (a *API) putMember(ctx context.Context, c *gin.Context, by chat.Actor) error {
	room, name, err := pathMember(c)
	if err != nil {
		return err
	}
	var in struct {
		Role chat.Role `json:"role"`
	}
	buf := getBuffer()
	defer buf.free()
	if err := a.readOptionalJSON(c, by, buf, &in); err != nil {
		return err
	}
	switch in.Role {
	case "", chat.RoleOwner, chat.RoleAdmin, chat.RoleMember:
	default:
		return invalid("role must be owner, admin or member")
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	role, err := a.store.PutMember(ctx, by, room, name, in.Role)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, memberView{User: name, Role: role})
}

// DELETE /v1/rooms/{room}/members/{user}
func (a *API) removeMember(ctx context.Context, c *gin.Context, by chat.Actor) error {
	room, name, err := pathMember(c)
	if err != nil {
		return err
	}
	if err := a.store.RemoveMember(ctx, by, room, name); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	return nil
}

func pathMember(c *gin.Context) (room, name string, err error) {
	if room, err = pathRoom(c); err != nil {
		return "", "", err
	}
	name, err = pathUser(c)
	return room, name, err
}
