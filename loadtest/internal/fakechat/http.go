package fakechat

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/madang-chat/madang/protocol"
)

func (s *Server) createRoom(w http.ResponseWriter, r *http.Request) {
	user, err := userOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	var in struct {
		ID      string   `json:"id"`
		Members []string `json:"members"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rooms[in.ID] != nil {
		http.Error(w, `{"code":"room_exists"}`, http.StatusConflict)
		return
	}
	s.rooms[in.ID] = &room{members: append(in.Members, user), keys: map[string]int{}}
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"id":%q}`, in.ID)
}

func (s *Server) putMember(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rm := s.rooms[r.PathValue("room")]; rm != nil && !slices.Contains(rm.members, r.PathValue("user")) {
		rm.members = append(rm.members, r.PathValue("user"))
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) getRoom(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rm := s.rooms[r.PathValue("room")]
	if rm == nil {
		http.Error(w, `{"code":"room_not_found"}`, http.StatusNotFound)
		return
	}
	fmt.Fprintf(w, `{"id":%q,"head":%q,"n":%d}`, r.PathValue("room"), rm.head(), len(rm.entries))
}

func (s *Server) send(w http.ResponseWriter, r *http.Request) {
	user, err := userOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	var in struct {
		Text        string   `json:"text"`
		Attachments []string `json:"attachments"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := r.PathValue("room")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch rm := s.rooms[id]; {
	case rm == nil:
		http.Error(w, `{"code":"room_not_found"}`, http.StatusNotFound)
		return
	case !slices.Contains(rm.members, user):
		http.Error(w, `{"code":"forbidden"}`, http.StatusForbidden)
		return
	}
	for _, file := range in.Attachments {
		if s.files[file] == 0 {
			http.Error(w, `{"code":"attachment_not_found"}`, http.StatusNotFound)
			return
		}
		s.attached[file]++
	}
	e := s.append(id, user, r.Header.Get("Idempotency-Key"), in.Text)
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(protocol.AppendMessage(nil, id, e.id, e.prev, e.n, e.tail))
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	if _, err := userOf(r); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	answer, takes := s.answer, s.takesFiles
	s.mu.Unlock()
	if !takes {
		http.Error(w, `{"code":"attachments_off"}`, http.StatusNotFound)
		return
	}
	if answer != nil && answer(w, r) {
		return
	}
	file, head, err := r.FormFile("file")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer file.Close()
	size, err := io.Copy(io.Discard, file)
	if err != nil || size != head.Size {
		http.Error(w, "half a file", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("F%d", len(s.files)+1)
	s.files[id] = int(size)
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"id":%q,"name":%q,"size":%d}`, id, head.Filename, size)
}

func (s *Server) history(w http.ResponseWriter, r *http.Request) {
	if _, err := userOf(r); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	after, err := protocol.ParseID(r.URL.Query().Get("after"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := r.PathValue("room")
	s.mu.Lock()
	defer s.mu.Unlock()
	var page []json.RawMessage
	const limit = 3
	more := false
	for _, e := range s.rooms[id].entries {
		if !after.Less(e.id) {
			continue
		}
		if len(page) == limit {
			more = true
			break
		}
		page = append(page, protocol.AppendMessage(nil, id, e.id, e.prev, e.n, e.tail))
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"messages": page, "more": more})
}
