package agents

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
)

// place starts workers at one agent.
type place struct {
	hub   *Hub
	agent int
}

const (
	// startPatience is how long an agent may take from hearing of a worker to
	// connecting it.
	startPatience = 20 * time.Second
	// orderPatience is how long an order may take to leave: a worker reads them at
	// once, a machine that is gone never.
	orderPatience = 20 * time.Second
	// causePatience is how much later than its end the cause of a worker's death
	// may come.
	causePatience = time.Second
)

// Start has the agent start a worker, and waits until it is connected.
func (p place) Start(worker int) (crew.Process, error) {
	h := p.hub
	h.mu.Lock()
	a := h.agents[p.agent]
	proc := &process{hub: h, agent: a, connected: make(chan struct{}), cause: make(chan string, 1)}
	a.processes[worker] = proc
	a.pending = append(a.pending, worker)
	h.mu.Unlock()
	select {
	case <-proc.connected:
		return proc, nil
	case cause := <-proc.cause:
		return nil, fmt.Errorf("%s: starting a worker: %s", a, cause)
	case <-time.After(startPatience):
		proc.cut()
		return nil, fmt.Errorf("%s did not start a worker in %v", a, startPatience)
	}
}

// process is a worker at an agent, by its connection.
type process struct {
	hub       *Hub
	agent     *remote
	connected chan struct{}
	cause     chan string // what it died of, once

	mu     sync.Mutex // guards conn and closed
	conn   *net.TCPConn
	reader io.Reader
	closed bool
}

// connect hands over the connection; false when it comes too late, or twice.
func (p *process) connect(conn net.Conn, r io.Reader) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	tcp, ok := conn.(*net.TCPConn)
	if !ok || p.closed || p.conn != nil {
		return false
	}
	p.conn, p.reader = tcp, r
	close(p.connected)
	return true
}

// cut ends the connection: whoever reads it sees the end.
func (p *process) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.conn != nil {
		p.conn.Close()
	}
}

func (p *process) diedOf(cause string) {
	select {
	case p.cause <- cause:
	default:
	}
}

func (p *process) Read(b []byte) (int, error) { return p.reader.Read(b) }

func (p *process) Write(b []byte) (int, error) {
	_ = p.conn.SetWriteDeadline(time.Now().Add(orderPatience)) // fails only when closed, as the write will
	return p.conn.Write(b)
}

func (p *process) Finish() { _ = p.conn.CloseWrite() } // fails only when closed

func (p *process) Kill() { p.cut() }

// End says what the worker died of, if its agent lives to tell.
func (p *process) End() string {
	defer p.cut()
	select {
	case cause := <-p.cause:
		return fmt.Sprintf("%s: %s", p.agent, cause)
	case <-time.After(causePatience):
	}
	p.hub.mu.Lock()
	defer p.hub.mu.Unlock()
	if p.agent.gone == "" {
		p.agent.gone = "its connection ended"
	}
	return fmt.Sprintf("%s is gone: %s", p.agent, p.agent.gone)
}
