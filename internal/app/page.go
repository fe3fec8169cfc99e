package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/madang-chat/madang/api"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/protocol"
	"github.com/madang-chat/madang/web"
)

// devTokenLife is long enough for a working day in one tab.
const devTokenLife = 12 * time.Hour

// page serves the demo page and what only `madang dev` does for it: a token for
// any name, and a seat in any room.
type page struct {
	store       *redisstore.Store
	secret      []byte
	auth        config.Auth
	gatewayAddr func() string
	// gatewayScheme is how a URL of its sockets begins.
	gatewayScheme string
}

// routes are served beside the API's own.
func (p *page) routes() ([]api.Extra, error) {
	extra := []api.Extra{
		{Method: http.MethodGet, Path: "/dev/config.json", Handler: http.HandlerFunc(p.settings)},
		{Method: http.MethodPost, Path: "/dev/token", Handler: http.HandlerFunc(p.token)},
		{Method: http.MethodPost, Path: "/dev/join", Handler: http.HandlerFunc(p.join)},
	}
	files, err := fs.ReadDir(web.Files, ".")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		content, err := web.Files.ReadFile(f.Name())
		if err != nil {
			return nil, err
		}
		url := "/" + f.Name()
		if f.Name() == "index.html" {
			url = "/"
		}
		extra = append(extra, api.Extra{Method: http.MethodGet, Path: url, Handler: file(f.Name(), content)})
	}
	return extra, nil
}

// contentPolicy lets the page load its own files and connect to anywhere: the
// gateway has an address of its own.
const contentPolicy = "default-src 'self'; connect-src *; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

func file(name string, content []byte) http.Handler {
	contentType := mime.TypeByExtension(path.Ext(name))
	if strings.HasSuffix(name, ".js") {
		contentType = "text/javascript; charset=utf-8" // some systems' tables say otherwise
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		_, _ = w.Write(content)
	})
}

// settings tells the page where the gateway is: on the host the page came from,
// which is right from another machine, too.
func (p *page) settings(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, port, _ := net.SplitHostPort(p.gatewayAddr())
	answer(w, http.StatusOK, map[string]string{
		"api": "", "ws": p.gatewayScheme + net.JoinHostPort(strings.Trim(host, "[]"), port) + "/v1/ws", "version": Version(),
	})
}

// token hands out a token for any name.
func (p *page) token(w http.ResponseWriter, r *http.Request) {
	var in struct{ User string }
	if !read(w, r, &in) {
		return
	}
	o := auth.MintOptions{Issuer: p.auth.JWTIssuer}
	if len(p.auth.JWTAudience) > 0 {
		o.Audience = p.auth.JWTAudience[:1]
	}
	token, err := auth.Mint(p.secret, in.User, devTokenLife, o)
	if err != nil {
		refuse(w, http.StatusBadRequest, protocol.ErrInvalid, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]string{"token": token})
}

// join gives whoever has the room's link a seat in it, and makes the room when
// there is none. Elsewhere a member of the room has to ask one in.
func (p *page) join(w http.ResponseWriter, r *http.Request) {
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	verifier, err := auth.New(auth.Options{Secret: p.secret, Issuer: p.auth.JWTIssuer, Audience: p.auth.JWTAudience})
	if err != nil {
		refuse(w, http.StatusInternalServerError, protocol.ErrInternal, "no verifier")
		return
	}
	claims, err := verifier.Verify(bearer)
	if err != nil {
		refuse(w, http.StatusUnauthorized, protocol.ErrUnauthorized, err.Error())
		return
	}
	var in struct{ Room string }
	if !read(w, r, &in) {
		return
	}
	if !protocol.ValidRoom(in.Room) {
		refuse(w, http.StatusBadRequest, protocol.ErrInvalid, "a room's ID is 1-64 characters of A-Z a-z 0-9 . _ ~ -")
		return
	}
	created, err := p.seat(r.Context(), claims.User, in.Room)
	if err != nil {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, protocol.ErrUnavailable, err.Error())
		return
	}
	answer(w, http.StatusOK, map[string]bool{"created": created})
}

// seat makes user a member of room, and makes the room when there is none. Who
// is a member keeps the role.
func (p *page) seat(ctx context.Context, user, room string) (created bool, err error) {
	_, _, err = p.store.Room(ctx, chat.Actor{User: user}, room)
	if errors.Is(err, chat.ErrNoRoom) {
		if _, err = p.store.CreateRoom(ctx, chat.Actor{User: user}, room, room, nil); !errors.Is(err, chat.ErrRoomExists) {
			return err == nil, err
		}
		err = chat.ErrNotMember // somebody was faster
	}
	if errors.Is(err, chat.ErrNotMember) {
		_, err = p.store.PutMember(ctx, chat.Actor{Server: true}, room, user, chat.RoleMember)
	}
	return false, err
}

// maxDevBody is more than any name or room takes.
const maxDevBody = 4 << 10

// read decodes a request; JSON only, so that a foreign page's form can't ask.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, protocol.ErrMediaType, "Content-Type must be application/json")
		return false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDevBody))
	if err == nil {
		err = json.Unmarshal(body, into)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, protocol.ErrMalformed, "the body is not what it should be")
		return false
	}
	return true
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, code protocol.ErrorCode, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "code": code, "title": http.StatusText(status), "detail": detail})
}
