// Command echo returns every message it is sent, over the gateway's own loops,
// sessions and frames, so that public conformance suites can judge them:
//
//	go run ./test/echo -addr 127.0.0.1:9001 [-deflate]
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
	deflate := flag.Bool("deflate", false, "agree to permessage-deflate")
	flag.Parse()
	if err := run(*addr, *deflate); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string, compress bool) error {
	g, err := server.New(addr, compress)
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
