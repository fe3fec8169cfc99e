package autobahn

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/madang-chat/madang/test/echo/server"
)

// numberOfCases is the public suite's.
const numberOfCases = 517

// a play is a case: what it is called and what it does.
type play struct {
	id  string
	run func(t *testing.T, addr string)
}

func TestCases(t *testing.T) {
	addr := os.Getenv("MADANG_ECHO")
	if addr == "" {
		addr = echo(t)
	}
	var plays []play
	for _, scripts := range [][]script{framing(), pings(), reserved(), opcodes(), fragmentation(), utf8Handling(), closeHandling()} {
		for _, s := range scripts {
			plays = append(plays, play{s.id, s.play})
		}
	}
	plays = append(plays, failFast()...)
	plays = append(plays, limits()...)
	plays = append(plays, play{"10.1.1", autoFragmentation})
	plays = append(plays, compression()...)
	seen := make(map[string]bool)
	for _, p := range plays {
		if seen[p.id] {
			t.Errorf("%s is there twice", p.id)
		}
		seen[p.id] = true
	}
	if len(plays) != numberOfCases {
		t.Errorf("%d cases, not %d", len(plays), numberOfCases)
	}
	for _, p := range plays {
		t.Run(p.id, func(t *testing.T) {
			t.Parallel()
			p.run(t, addr)
		})
	}
}

// echo starts a server and returns where it is.
func echo(t *testing.T) string {
	g, err := server.New("127.0.0.1:0", true)
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(func() { // after the parallel cases
		if n := g.Stats().HeldBytes; n != 0 {
			t.Errorf("%d bytes are still held", n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := g.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return g.Addr().String()
}
