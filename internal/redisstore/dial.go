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

// dialAny dials one address after the other. Each has its share of what is left until
// ctx's deadline; package net has two seconds at least for each, which is more than a
// connect may take.
func dialAny(ctx context.Context, addrs []string, dial func(ctx context.Context, addr string) (net.Conn, error)) (conn net.Conn, err error) {
	deadline, _ := ctx.Deadline()
	for i, addr := range addrs {
		share := time.Until(deadline) / time.Duration(len(addrs)-i)
		one, cancel := context.WithTimeout(ctx, share)
		conn, err = dial(one, addr)
		cancel()
		if err == nil {
			return conn, nil
		}
	}
	return nil, err
}
