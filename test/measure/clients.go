package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is connected clients that answer pings and count messages.
type crowd struct {
	conns    []net.Conn
	messages atomic.Int64 // received
	ended    atomic.Int64 // connections that broke
	closing  atomic.Bool
	wg       sync.WaitGroup
}

// connect opens a connection for each user; it returns when each has its hello.
func (f *fleet) connect(users []string) (*crowd, error) {
	c := &crowd{conns: make([]net.Conn, len(users))}
	for _, u := range users {
		f.token(u) // made before the clock runs
	}
	err := inParallel(len(users), 64, func(i int) error {
		conn, err := net.DialTimeout("tcp", f.gateway.addr, 20*time.Second)
		if err != nil {
			return err
		}
		c.conns[i] = conn
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		_, err = fmt.Fprintf(conn, "GET /v1/ws HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: madang.v1\r\nAuthorization: Bearer %s\r\n\r\n", f.token(users[i]))
		if err != nil {
			return err
		}
		r := bufio.NewReaderSize(conn, 1024)
		status, err := r.ReadString('\n')
		if err != nil || !strings.Contains(status, " 101 ") {
			return fmt.Errorf("upgrade: %q, %w", status, err)
		}
		for line := ""; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				return err
			}
		}
		hello := make(chan error, 1)
		c.wg.Add(1)
		go c.read(conn, r, hello)
		return <-hello
	})
	if err != nil {
		c.close()
		return nil, err
	}
	for _, conn := range c.conns {
		_ = conn.SetDeadline(time.Time{})
	}
	return c, nil
}

// read reads frames until the connection ends.
func (c *crowd) read(conn net.Conn, r *bufio.Reader, hello chan<- error) {
	defer c.wg.Done()
	greeted := false
	for {
		opcode, payload, err := readFrame(r)
		if err != nil {
			if !greeted {
				hello <- err
			}
			if !c.closing.Load() {
				c.ended.Add(1)
			}
			return
		}
		switch opcode {
		case 1:
			if !greeted {
				greeted = true
				if !bytes.Contains(payload, []byte(`"hello"`)) {
					hello <- fmt.Errorf("first frame is %s", payload)
					return
				}
				hello <- nil
			}
			c.messages.Add(int64(bytes.Count(payload, []byte(`{"type":"message"`))))
		case 9: // ping: answered with a pong, masked with zeros
			if _, err := conn.Write(append([]byte{0x8a, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)); err != nil && !c.closing.Load() {
				c.ended.Add(1)
				return
			}
		}
	}
}

func readFrame(r *bufio.Reader) (opcode byte, payload []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:2]); err != nil {
		return 0, nil, err
	}
	opcode = head[0] & 15
	n := uint64(head[1] & 127)
	switch n {
	case 126:
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(head[:2]))
	case 127:
		if _, err := io.ReadFull(r, head[:8]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(head[:8])
	}
	if n > 1<<20 {
		return 0, nil, errors.New("a frame of more than 1 MiB")
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return opcode, payload, err
}

func (c *crowd) close() {
	c.closing.Store(true)
	for _, conn := range c.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
	c.wg.Wait()
}

// wait waits until that many messages have come.
func (c *crowd) wait(n int64) error {
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if c.messages.Load() >= n {
			return nil
		}
	}
	return fmt.Errorf("%d messages came of %d; %d connections ended", c.messages.Load(), n, c.ended.Load())
}
