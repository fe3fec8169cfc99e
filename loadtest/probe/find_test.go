package probe

import (
	"net"
	"os"
	"slices"
	"testing"
)

// crowded is a listener of this process, behind a number of connections that were
// opened after it, each with both ends here.
func crowded(tb testing.TB, connections int) (port int) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	for range connections {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			tb.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT for the next test
			c.Close()
			s.Close()
		})
	}
	return l.Addr().(*net.TCPAddr).Port
}

func TestTheKernelAndItsFilesAgree(t *testing.T) {
	port := crowded(t, 20)
	for name, ask := range map[string][3]int{
		"listeners":  {listening, port, 0},
		"server end": {established, port, 0},
		"client end": {established, 0, port},
		"nobody":     {listening, 1, 0},
	} {
		asked, err := diagnose(ask[0], ask[1], ask[2])
		if err != nil {
			t.Skipf("no sock_diag here: %v", err)
		}
		files := read(ask[0], ask[1], ask[2])
		for _, all := range [][]socket{asked, files} {
			slices.SortFunc(all, func(a, b socket) int { return int(a.inode) - int(b.inode) })
		}
		if !slices.Equal(asked, files) {
			t.Errorf("%s: the kernel says %v, its files %v", name, asked, files)
		}
	}
	if n := len(sockets(established, port, 0)); n != 20 {
		t.Errorf("%d connections, want 20", n)
	}
}

// TestAListenerBehindManyDescriptorsIsFound: one that was opened late, too.
func TestAListenerBehindManyDescriptorsIsFound(t *testing.T) {
	crowded(t, early)
	port := crowded(t, 0)
	if found := Listeners("gateway", port); len(found) != 1 || found[0].Pid != os.Getpid() || found[0].Port != port {
		t.Errorf("found %+v", found)
	}
}

func TestOneProcessIsConnectedToAnotherByItsSockets(t *testing.T) {
	port := crowded(t, 3)
	peers := map[uint32]int{}
	for _, s := range sockets(established, 0, port) {
		peers[s.inode] = port
	}
	if len(peers) != 3 || !holds(os.Getpid(), peers) || holds(1, peers) {
		t.Errorf("%v", peers)
	}
}

// BenchmarkListeners is what finding one costs beside 4,000 connections (8,000
// sockets).
func BenchmarkListeners(b *testing.B) {
	port := crowded(b, 4000)
	b.Run("asking", func(b *testing.B) {
		for b.Loop() {
			if len(Listeners("api", port)) != 1 {
				b.Fatal("not found")
			}
		}
	})
	b.Run("reading_files", func(b *testing.B) {
		for b.Loop() {
			if len(read(listening, port, 0)) != 1 {
				b.Fatal("not found")
			}
		}
	})
}
