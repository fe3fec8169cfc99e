package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// echo answers with what it was told, until the connection ends.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

type conversation struct {
	t *testing.T
	net.Conn
}

func dial(t *testing.T, p *Proxy) conversation {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return conversation{t, c}
}

func (c conversation) says(what []byte) {
	c.t.Helper()
	if _, err := c.Write(what); err != nil {
		c.t.Fatal(err)
	}
}

func (c conversation) hears(what []byte) {
	c.t.Helper()
	got := make([]byte, len(what))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, what) {
		c.t.Fatalf("heard %q, %v; want %q", got, err, what)
	}
}

// hearsNothing for a while, on an open connection.
func (c conversation) hearsNothing() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := c.Read(make([]byte, 10))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("heard %d bytes, %v; want silence", n, err)
	}
}

func (c conversation) ends() (heard int) {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection does not end")
	}
	return int(n)
}

func start(t *testing.T) *Proxy {
	t.Helper()
	p, err := Listen(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestFaults(t *testing.T) {
	p := start(t)
	a := dial(t, p)
	a.says([]byte("hi"))
	a.hears([]byte("hi"))

	p.Stall()
	a.says([]byte("there"))
	b := dial(t, p)
	b.says([]byte("me too"))
	a.hearsNothing()
	b.hearsNothing()
	p.Heal()
	a.hears([]byte("there"))
	b.hears([]byte("me too"))

	p.ResetAfter(3)
	a.says([]byte("abcdef"))
	if n := a.ends(); n != 3 {
		t.Fatalf("%d bytes came before the reset, want 3", n)
	}

	p.Refuse()
	b.ends()
	// The reset may be there before dialling is over.
	if c, err := net.Dial("tcp", p.Addr()); err == nil {
		conversation{t, c}.ends()
		c.Close()
	}
	p.Heal()

	c := dial(t, p)
	c.says([]byte("1"))
	c.hears([]byte("1"))
	p.HalfOpen()
	c.says([]byte("2"))
	c.says([]byte("3"))
	c.hearsNothing()

	e := dial(t, p)
	e.says([]byte("4"))
	e.hears([]byte("4"))
	p.Silence()
	e.says([]byte("5"))
	e.hearsNothing()

	d := dial(t, p)
	p.Throttle(10_000)
	start := time.Now()
	what := bytes.Repeat([]byte("x"), 2000)
	d.says(what)
	d.hears(what)
	if took := time.Since(start); took < 200*time.Millisecond {
		t.Fatalf("2,000 bytes at 10,000/s took %v", took)
	}
	p.Heal()

	p.Stall()
	d.says(what) // Close must not wait for the stall's end
}
