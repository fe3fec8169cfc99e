package rawconn_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/madang-chat/madang/internal/rawconn"
)

// pair is two ends of a connection, both rawconn's.
func pair(tb testing.TB) (a, b net.Conn) {
	tb.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l := rawconn.Listener(inner)
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	a = rawconn.New(dialed)
	if b, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// Whatever package net promises of a net.Conn: deadlines, concurrency, ends.
func TestAConnIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		a, b = pair(t)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestErrorsSayWhatPackageNetSays(t *testing.T) {
	a, b := pair(t)
	if err := a.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("a read after its deadline: %v", err)
	}
	a.SetReadDeadline(time.Time{})
	b.(interface{ SetLinger(int) error }).SetLinger(0)
	b.Close() // a reset
	_, err := a.Read(make([]byte, 1))
	if op, ok := err.(*net.OpError); !ok || op.Op != "read" || !strings.Contains(err.Error(), "reset by peer") {
		t.Errorf("a read from a connection that was reset: %#v", err)
	}
	a.Close()
	if _, err := a.Write([]byte("x")); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a write to a closed connection: %v", err)
	}
}

func TestMoreThanASocketTakesIsWritten(t *testing.T) {
	a, b := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	go func() {
		a.Write(sent)
		a.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(sent), err)
	}
}

func TestReadingAndWritingAllocatesNothing(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		a.Write(buf)
		b.Read(buf)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// A pool that asks whether an idle connection is still good is told without a call
// that the scheduler hears of, unless there is something to see.
func TestAPoolSeesWhatAnIdleConnectionHas(t *testing.T) {
	a, b := pair(t)
	if _, ok := a.(*rawconn.Conn); !ok {
		t.Skip("not on this system")
	}
	asked := func() (called bool) {
		raw, err := a.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Read(func(uintptr) bool { called = true; return true }); err != nil {
			t.Fatal(err)
		}
		return called
	}
	if asked() {
		t.Error("asked about a connection with nothing to read")
	}
	b.Write([]byte("x"))
	for !asked() {
		time.Sleep(time.Millisecond)
	}
	a.Read(make([]byte, 1))
	b.Close()
	for !asked() {
		time.Sleep(time.Millisecond)
	}
}

func TestAnHTTPServerServesOverIt(t *testing.T) {
	s := httptest.NewUnstartedServer(http.FileServer(http.Dir(".")))
	s.Listener = rawconn.Listener(s.Listener)
	s.Start()
	defer s.Close()
	for range 3 { // over one connection
		answer, err := s.Client().Get(s.URL + "/rawconn.go")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		want, _ := os.ReadFile("rawconn.go")
		if err != nil || !bytes.Equal(body, want) {
			t.Fatalf("%d bytes of %d, %v", len(body), len(want), err)
		}
	}
}
