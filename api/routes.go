package api

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
)

// access is who may call a route.
type access uint8

const (
	public access = iota // anybody
	caller               // whoever has a token or a server key; by.User may be empty with the latter
	user                 // by.User is set: a server key must name whom it acts for
)

// handler answers a request or returns why not. It must not have written
// anything when it returns an error. ctx bounds what it asks the Store for, but
// in POST and PUT, where it is the request's: see storeTime.
type handler func(a *API, ctx context.Context, c *gin.Context, by chat.Actor) error

type route struct {
	method, path string
	access       access
	handle       handler
}

// routes are all there is, each GET with its HEAD; openapi.yaml describes them, and a test compares.
var routes = []route{
	{http.MethodPost, "/v1/rooms", caller, (*API).createRoom},
	{http.MethodGet, "/v1/rooms", user, read((*API).listRooms)},
	{http.MethodGet, "/v1/rooms/:room", caller, (*API).getRoom},
	{http.MethodGet, "/v1/rooms/:room/members", caller, read((*API).listMembers)},
	{http.MethodPut, "/v1/rooms/:room/members/:user", caller, (*API).putMember},
	{http.MethodDelete, "/v1/rooms/:room/members/:user", caller, (*API).removeMember},
	{http.MethodPost, "/v1/rooms/:room/messages", user, (*API).send},
	{http.MethodGet, "/v1/rooms/:room/messages", caller, read((*API).history)},
	{http.MethodPost, "/v1/rooms/:room/read", user, (*API).markRead},
	{http.MethodPut, "/v1/rooms/:room/retention", caller, (*API).setRetention},
	{http.MethodDelete, "/v1/rooms/:room/retention", caller, (*API).clearRetention},
	{http.MethodPost, "/v1/attachments", user, (*API).upload},
	{http.MethodGet, "/v1/attachments/:id", caller, (*API).download},
	{http.MethodGet, "/v1/presence", caller, read((*API).presence)},
	{http.MethodPost, "/v1/focus", user, (*API).focus},
	{http.MethodPost, "/v1/typing", user, (*API).typing},
	{http.MethodPost, "/v1/delivered", user, (*API).delivered},
	{http.MethodPost, "/v1/watch", user, (*API).watch},
	{http.MethodPost, "/v1/tickets", user, (*API).ticket},
	{http.MethodPost, "/v1/users/:user/disconnect", caller, (*API).disconnect},
	{http.MethodGet, "/openapi.json", public, (*API).serveSpec},
	{http.MethodGet, "/docs", public, (*API).serveDocs},
}

// endpoint wraps a route's handler with what all have in common: who asks, how
// long it may take, and what becomes of an error.
func (a *API) endpoint(r route) gin.HandlerFunc {
	return func(c *gin.Context) {
		var by chat.Actor
		if r.access != public {
			var err error
			if by, err = a.actor(c.Request, r.access == user); err != nil {
				a.fail(c, err)
				return
			}
		}
		ctx := c.Request.Context()
		if r.method != http.MethodPost && r.method != http.MethodPut { // what may have a body, waits for it first
			var cancel context.CancelFunc
			ctx, cancel = a.storeTime(ctx)
			defer cancel()
		}
		if err := r.handle(a, ctx, c, by); err != nil {
			a.fail(c, err)
		}
	}
}

// storeTime bounds what a request may wait for Redis from now on. It begins when
// the body has come: how long a client takes for that, the server bounds.
func (a *API) storeTime(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.limits.StoreTimeout)
}
