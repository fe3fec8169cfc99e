// Command echo returns every message it is sent, over the gateway's own loops,
// sessions and frames, so that public conformance suites can judge them:
//
//	go run ./test/echo -addr 127.0.0.1:9001
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/madang-chat/madang/test/echo/server"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9001", "where to listen")
	flag.Parse()
	if err := run(*addr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string) error {
	g, err := server.New(addr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	g.Start()
	fmt.Println("echo on", g.Addr())
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return g.Stop(bounded)
}
