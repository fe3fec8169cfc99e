package api

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/madang-chat/madang/internal/chat"
)

var errServerOnly = forbidden("only a server key may do this")

// POST /v1/users/{user}/disconnect
func (a *API) disconnect(ctx context.Context, c *gin.Context, by chat.Actor) error {
	if !by.Server {
		return errServerOnly
	}
	name, err := pathUser(c)
	if err != nil {
		return err
	}
	ctx, cancel := a.storeTime(ctx)
	defer cancel()
	before, err := a.store.Disconnect(ctx, name)
	if err != nil {
		return err
	}
	return writeJSON(c, http.StatusOK, struct {
		User   string `json:"user"`
		Before string `json:"before"`
	}{name, formatTime(time.UnixMilli(int64(before)))})
}
