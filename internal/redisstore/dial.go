package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"github.com/madang-chat/madang/internal/rawconn"
)

// dialer connects as go-redis does by itself, but for two things. The scheduler is not
// told of the connections: a call to Redis is two of theirs. And a name may have several
// addresses, of a host that is gone among them, which package net would give all the time
// there is.
func (o Options) dialer(withTLS bool) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, o.DialTimeout, network, addr)
		if err != nil {
			return nil, err
		}
		conn = rawconn.New(conn)
		if !withTLS {
			return conn, nil
		}
		failed := func(err error) (net.Conn, error) {
			conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Addr: conn.RemoteAddr(), Err: err}
		}
		config, err := o.tlsFor(addr)
		if err != nil {
			return failed(err)
		}
		ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
		defer cancel()
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return failed(err)
		}
		return secure, nil
	}
}

// tlsFor is how a server is spoken to now.
func (o Options) tlsFor(addr string) (config *tls.Config, err error) {
	if o.TLS != nil {
		if config, err = o.TLS(); err != nil {
			return nil, err
		}
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(addr)
	}
	return config, nil
}

func dial(ctx context.Context, timeout time.Duration, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := addrsOf(ctx, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var d net.Dialer
	return dialAny(ctx, addrs, func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, network, addr) })
}

// addrsOf are the addresses of host:port, the preferred one first.
func addrsOf(ctx context.Context, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return []string{addr}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	addrs := make([]string, len(ips))
	for i, ip := range ips {
		addrs[i] = net.JoinHostPort(ip.Unmap().String(), port)
	}
	return addrs, nil
}

// dialAny dials addresses, each when one before it has failed or all of those have had
// their share of the time until ctx's deadline, and returns the connection that comes
// first.
func dialAny(ctx context.Context, addrs []string, dial func(ctx context.Context, addr string) (net.Conn, error)) (net.Conn, error) {
	if len(addrs) == 1 {
		return dial(ctx, addrs[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type attempt struct {
		conn net.Conn
		err  error
	}
	attempts := make(chan attempt, len(addrs))
	deadline, _ := ctx.Deadline()
	share := time.Until(deadline) / time.Duration(len(addrs))
	begun, failed := 0, 0
	var first error
	for failed < len(addrs) {
		var over <-chan time.Time
		if begun < len(addrs) {
			addr := addrs[begun]
			begun++
			go func() { // ends with ctx
				conn, err := dial(ctx, addr)
				attempts <- attempt{conn, err}
			}()
			if begun < len(addrs) {
				over = time.After(share)
			}
		}
		select {
		case <-over:
		case a := <-attempts:
			if a.err == nil {
				go func() { // ends when the others have, with ctx
					for range begun - failed - 1 {
						if late := <-attempts; late.err == nil {
							late.conn.Close()
						}
					}
				}()
				return a.conn, nil
			}
			if failed++; first == nil {
				first = a.err
			}
		}
	}
	return nil, first
}
