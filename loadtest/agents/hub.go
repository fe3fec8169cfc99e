package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/madang-chat/madang/loadtest/clock"
	"github.com/madang-chat/madang/loadtest/crew"
)

// Hub is the coordinator's side: for one run, and a number of agents that is
// known before.
type Hub struct {
	secret  []byte
	version string
	want    int
	clock   clock.Clock
	boot    string
	server  *http.Server
	closing chan struct{}

	mu     sync.Mutex // guards what follows, and the remotes
	agents []*remote
	nextID int  // from a random one: an agent of a coordinator that died here is not taken for one of ours
	begun  bool // the agents are complete: nobody is added, nobody forgotten
	over   bool
}

// remote is an agent as the hub knows it.
type remote struct {
	Join
	id        int
	addr      string
	clock     Reading // the best so far; once begun, the one that its workers use
	fixed     time.Duration
	drift     time.Duration
	busiest   float64
	heard     time.Time
	gone      string // why; empty: it is there
	told      bool   // that the run is over
	pending   []int  // workers to start
	processes map[int]*process
}

// Listen opens the hub's address for the agents of one run.
func Listen(addr string, secret []byte, version string, want int, c clock.Clock) (*Hub, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("the agents' secret has %d bytes; it must have at least %d (openssl rand -hex 32 makes one)", len(secret), MinSecretBytes)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("an address for agents: %w", err)
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	h := &Hub{secret: secret, version: version, want: want, clock: c, boot: strings.TrimSpace(string(boot)), closing: make(chan struct{}), nextID: rand.IntN(1 << 50)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/clock", h.handleClock)
	mux.HandleFunc("POST /v1/agents", h.handleJoin)
	mux.HandleFunc("POST /v1/agents/{id}/beat", h.handleBeat)
	mux.HandleFunc("POST /v1/agents/{id}/workers/{n}", h.handleWorker)
	mux.HandleFunc("POST /v1/agents/{id}/workers/{n}/end", h.handleEnd)
	h.server = &http.Server{
		Addr: l.Addr().String(), Handler: h.guard(mux), MaxHeaderBytes: maxHeaders,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * silence,
	}
	go func() { _ = h.server.Serve(l) }() // until Close
	go h.watch()
	return h, nil
}

// Addr is where the hub listens.
func (h *Hub) Addr() string { return h.server.Addr }

// guard lets only those in who know the secret, and bounds what they send.
func (h *Hub) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !proves(r, h.secret) {
			http.Error(w, "the agents' secret is wrong: give both sides the same --agent-secret-file", http.StatusUnauthorized)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// Wait waits until all agents have registered. say is told of each.
func (h *Hub) Wait(ctx context.Context, patience time.Duration, say func(format string, args ...any)) error {
	deadline := time.After(patience)
	for known := -1; ; {
		h.mu.Lock()
		names := h.names()
		h.begun = len(names) == h.want
		begun := h.begun
		h.mu.Unlock()
		if len(names) != known {
			known = len(names)
			say("%d of %d agents at %s: %s", known, h.want, h.Addr(), strings.Join(names, ", "))
		}
		if begun {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for agents: %w", ctx.Err())
		case <-deadline:
			return fmt.Errorf("%d of %d agents registered at %s in %v: on each machine run \"madang loadtest agent --coordinator HOST:PORT --agent-secret-file FILE\"", known, h.want, h.Addr(), patience)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (h *Hub) names() (all []string) {
	for _, a := range h.agents {
		all = append(all, a.String())
	}
	return all
}

func (a *remote) String() string { return fmt.Sprintf("agent %s (%s)", a.Name, a.addr) }

// watch gives up agents that are not heard of.
func (h *Hub) watch() {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-h.closing:
			return
		case <-ticker.C:
		}
		h.mu.Lock()
		for _, a := range slices.Clone(h.agents) {
			if time.Since(a.heard) < silence || a.gone != "" {
				continue
			}
			a.gone = fmt.Sprintf("it has not been heard of for %v", silence)
			if !h.begun {
				h.agents = slices.DeleteFunc(h.agents, func(b *remote) bool { return a == b })
			}
			for _, p := range a.processes {
				p.cut()
			}
		}
		h.mu.Unlock()
	}
}

func (h *Hub) handleClock(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, `{"now_ns":%d}`, h.clock.Now())
}

func (h *Hub) handleJoin(w http.ResponseWriter, r *http.Request) {
	var j Join
	if !read(w, r, &j) {
		return
	}
	if reason := h.refuses(j); reason != "" {
		http.Error(w, reason, http.StatusConflict)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.begun || h.over || len(h.agents) >= h.want {
		// Not a refusal: an agent may wait for the next run here.
		http.Error(w, "this run has all its agents", http.StatusServiceUnavailable)
		return
	}
	h.nextID++
	h.agents = append(h.agents, &remote{
		Join: j, id: h.nextID, addr: r.RemoteAddr, clock: j.Clock, heard: time.Now(), processes: map[int]*process{},
	})
	write(w, Joined{ID: h.nextID})
}

// refuses says why an agent can't take part.
func (h *Hub) refuses(j Join) string {
	switch {
	case j.Version != h.version:
		return fmt.Sprintf("the agent is version %q, the coordinator %q: run the same program on both", j.Version, h.version)
	case j.Name == "" || len(j.Name) > 200 || j.Cores < 1 || j.OpenFiles < 1 || !j.Clock.plausible():
		return "this is not what an agent says of itself"
	}
	return ""
}

// agent finds the agent that a request is of; the caller must hold mu.
func (h *Hub) agent(w http.ResponseWriter, r *http.Request) *remote {
	id, _ := strconv.Atoi(r.PathValue("id"))
	for _, a := range h.agents {
		if a.id == id && a.gone == "" {
			return a
		}
	}
	http.Error(w, "no such agent in this run", http.StatusNotFound)
	return nil
}

func (h *Hub) handleBeat(w http.ResponseWriter, r *http.Request) {
	var b Beat
	if !read(w, r, &b) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.agent(w, r)
	if a == nil {
		return
	}
	a.heard = time.Now()
	if b.Clock.plausible() {
		a.take(b.Clock, h.clock.Now())
	}
	if len(a.processes) > 0 {
		a.busiest = max(a.busiest, b.Busy)
	}
	orders := Orders{Start: a.pending, Over: h.over}
	a.pending, a.told = nil, h.over
	write(w, orders)
}

// take weighs a comparison of clocks.
func (a *remote) take(r Reading, now int64) {
	switch {
	case a.fixed > 0:
		a.drift = max(a.drift, a.clock.Drift(r))
	case r.Error(now) < a.clock.Error(now):
		a.clock = r
	}
}

func (h *Hub) handleWorker(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.PathValue("n"))
	h.mu.Lock()
	var p *process
	a := h.agent(w, r)
	if a != nil {
		p = a.processes[n]
	}
	h.mu.Unlock()
	if a == nil {
		return
	}
	if p == nil || r.Header.Get("Upgrade") != protocolName {
		http.Error(w, "no such worker is to be started", http.StatusNotFound)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, err = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocolName + "\r\n\r\n"))
	if err = errors.Join(err, conn.SetDeadline(time.Time{})); err != nil || !p.connect(conn, buffered.Reader) {
		conn.Close()
	}
}

func (h *Hub) handleEnd(w http.ResponseWriter, r *http.Request) {
	var e End
	if !read(w, r, &e) {
		return
	}
	n, _ := strconv.Atoi(r.PathValue("n"))
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.agent(w, r); a != nil {
		if p := a.processes[n]; p != nil {
			p.diedOf(e.Cause)
		}
	}
}

// Agents is how many there are; they are numbered from 0.
func (h *Hub) Agents() int { return h.want }

// Info is what is known of an agent.
type Info struct {
	Join
	Addr    string
	Here    bool          // on the coordinator's machine
	Error   time.Duration // how wrong its workers' time may be
	Drift   time.Duration // by which its clock left what was agreed, during the run
	Busiest float64       // share of its machine, the most between two beats
	Gone    string        // why it left
}

// Info tells about an agent.
func (h *Hub) Info(agent int) Info {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.agents[agent]
	i := Info{Join: a.Join, Addr: a.addr, Here: a.Boot == h.boot && h.boot != "", Error: a.fixed + a.drift, Drift: a.drift, Busiest: a.busiest, Gone: a.gone}
	i.Clock = a.clock
	return i
}

// ClockOffset fixes what the workers of an agent take for the run's time.
func (h *Hub) ClockOffset(agent int) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	a := h.agents[agent]
	if a.fixed == 0 {
		a.fixed = max(1, a.clock.Error(h.clock.Now()))
	}
	return a.clock.Offset
}

// Close tells the agents that the run is over and closes the address.
func (h *Hub) Close() {
	h.mu.Lock()
	h.over = true
	h.mu.Unlock()
	// An agent that is not told takes the closed address for a coordinator that
	// died, and says so.
	for deadline := time.Now().Add(4 * beatEvery); time.Now().Before(deadline) && !h.allTold(); {
		time.Sleep(20 * time.Millisecond)
	}
	close(h.closing)
	h.server.Close()
}

func (h *Hub) allTold() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !slices.ContainsFunc(h.agents, func(a *remote) bool { return a.gone == "" && !a.told })
}

// Place is where the workers of an agent run.
func (h *Hub) Place(agent int) crew.Place { return place{h, agent} }

func read(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a peer that is gone does not need it
}
