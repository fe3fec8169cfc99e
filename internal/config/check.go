package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// MinSecretBytes is the shortest accepted HS256 secret (RFC 7518 §3.2: as long
// as the hash).
const MinSecretBytes = 32

// problems collects what is wrong with settings, each named as on the command line.
type problems []error

func (p *problems) add(flag, format string, args ...any) {
	*p = append(*p, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
}

func (p problems) err() error { return errors.Join(p...) }

func (p *problems) atLeast(flag string, got, least int64) {
	if got < least {
		p.add(flag, "%d is less than %d", got, least)
	}
}

func (p *problems) between(flag string, got, least, most int64) {
	if got < least || got > most {
		p.add(flag, "%d is not between %d and %d", got, least, most)
	}
}

func (p *problems) size(flag string, got, least Bytes) {
	if got < least {
		p.add(flag, "%s is less than %s", got, least)
	}
}

func (p *problems) duration(flag string, got, least, most time.Duration) {
	if got < least || got > most {
		p.add(flag, "%s is not between %s and %s", got, least, most)
	}
}

func (p *problems) addr(flag, addr string) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.add(flag, "%q is not of the form host:port", addr)
	}
}

// pair wants both of two settings, or neither.
func (p *problems) pair(a, aValue, b, bValue string) {
	switch {
	case aValue != "" && bValue == "":
		p.add(b, "--%s needs it", a)
	case aValue == "" && bValue != "":
		p.add(a, "--%s needs it", b)
	}
}

// mappedBits is what stands before an IPv4 address that is written as IPv6's.
const mappedBits = 96

// Proxies are the networks of --proxy-protocol-from; a single address is one, too.
func (c Sockets) Proxies() (all []netip.Prefix, err error) {
	for _, s := range c.ProxyProtocolFrom {
		prefix, err := netip.ParsePrefix(s)
		if addr, addrErr := netip.ParseAddr(s); err != nil && addrErr == nil && !strings.Contains(s, "/") { // a zone may hold one
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("--proxy-protocol-from: %q is neither a network such as 10.0.0.0/8 nor an address", s)
		}
		// As logs of sockets for both families write IPv4; it is compared with plain IPv4.
		if prefix.Addr().Is4In6() && prefix.Bits() >= mappedBits {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-mappedBits)
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

func (c Process) check(p *problems) {
	p.between("shed-percent", int64(c.ShedPercent), 1, 100)
	if c.AdminAddr != "" {
		p.addr("admin-addr", c.AdminAddr)
	}
	p.duration("drain-timeout", c.DrainTimeout, 0, time.Hour)
	p.duration("drain-delay", c.DrainDelay, 0, 10*time.Minute)
	if c.TraceEndpoint != "" {
		p.httpURL("trace-endpoint", c.TraceEndpoint)
	}
	if !(c.TraceSample >= 0 && c.TraceSample <= 1) { // not a number is neither
		p.add("trace-sample", "%v is not between 0 and 1", c.TraceSample)
	}
}

func (c Redis) check(p *problems) {
	if c.RedisFile != "" {
		if _, err := c.Where(); err != nil {
			*p = append(*p, err)
		}
	} else if err := checkRedisURL(c.URL); err != nil {
		p.add("redis", "%v", err)
	}
	// Who has these believes that nobody can listen.
	if url, err := c.Where(); err == nil && !strings.HasPrefix(url, "rediss") {
		for _, given := range [...]struct{ flag, file string }{{"redis-ca", c.RedisCA}, {"redis-cert", c.RedisCert}} {
			if given.file != "" {
				p.add(given.flag, "without a rediss URL Redis is spoken to in the clear")
			}
		}
	}
	c.checkNumbers(p)
}

func (c Redis) checkNumbers(p *problems) {
	p.pair("redis-cert", c.RedisCert, "redis-key", c.RedisKey)
	if _, err := c.TLS(); err != nil {
		*p = append(*p, err)
	}
	p.between("partitions", int64(c.Partitions), 1, 16384)
	p.duration("redis-timeout", c.RedisTimeout, 10*time.Millisecond, time.Minute)
	p.between("min-replicas-ack", int64(c.MinReplicasAck), 0, 100)
	p.duration("replica-timeout", c.ReplicaTimeout, time.Millisecond, time.Minute)
}

// checkRedisURL says what is wrong with a URL without repeating it: it may hold
// a password.
func checkRedisURL(s string) error {
	if s == "" {
		return errors.New("it must be given, for instance redis://127.0.0.1:6379/0")
	}
	scheme, _, ok := strings.Cut(s, "://")
	if !ok {
		return errors.New("it is not a URL, such as redis://127.0.0.1:6379/0")
	}
	switch scheme {
	case "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster":
		return nil
	}
	return fmt.Errorf("scheme %q is none of redis, rediss, redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster", scheme)
}

func (c Auth) check(p *problems) {
	if c.JWTSecret == "" && c.JWTSecretFile == "" && c.JWTKeyFile == "" && c.JWKSURL == "" {
		p.add("jwt-secret-file", "one of --jwt-secret-file, --jwt-secret, --jwt-key-file and --jwks-url must be given")
	}
	c.checkGiven(p)
}

func (c Auth) checkGiven(p *problems) {
	c.Secret.check(p)
	if c.JWKSURL != "" {
		p.httpURL("jwks-url", c.JWKSURL)
		p.duration("jwks-refresh", c.JWKSRefresh, time.Second, time.Hour)
	}
}

func (c Secret) check(p *problems) {
	if c.JWTSecret != "" && c.JWTSecretFile != "" {
		p.add("jwt-secret", "both it and --jwt-secret-file are given")
	}
	if _, err := c.Bytes(); err != nil {
		*p = append(*p, err)
	}
}

func (p *problems) httpURL(flag, s string) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		p.add(flag, "%q is not an http or https URL", Shown(s))
	}
}

// Shown is a URL as a log or an error may show it: without user and password, and
// without the query, which may hold a key.
func Shown(s string) string {
	begin := 0
	if i := strings.Index(s, "://"); i >= 0 {
		begin = i + len("://")
	}
	if at := strings.LastIndexByte(s, '@'); at >= begin {
		s = s[:begin] + s[at+1:]
	}
	s, _, _ = strings.Cut(s, "?")
	return s
}

func (c Origins) check(p *problems) {
	for _, o := range c.Origins {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != o || strings.HasSuffix(o, ":") {
			p.add("origins", "%q is not an origin such as https://chat.example.com", o)
			continue
		}
		// What follows would be compared with what browsers send, and never be it.
		port := u.Port()
		switch {
		case strings.Contains(o, "*"):
			p.add("origins", "%q stands for no other origins: only * alone does, for all", o)
		case u.Scheme == "http" && port == "80", u.Scheme == "https" && port == "443":
			p.add("origins", "%q has the port that browsers leave out: %s", o, strings.TrimSuffix(o, ":"+port))
		case strings.ContainsFunc(o, func(r rune) bool { return r > unicode.MaxASCII }):
			p.add("origins", "%q has letters that browsers write in ASCII (xn--…)", o)
		}
	}
}

func (c HTTP) check(p *problems) {
	p.addr("api-addr", c.APIAddr)
	p.pair("api-tls-cert", c.APITLSCert, "api-tls-key", c.APITLSKey)
	p.size("max-body", c.MaxBody, 1<<10)
	p.atLeast("max-text", int64(c.MaxText), 1)
	p.size("max-answers", c.MaxAnswers, 16<<20)
	p.duration("idempotency-window", c.IdempotencyWindow, time.Second, 7*24*time.Hour)
	p.atLeast("max-room-members", int64(c.MaxRoomMembers), 2)
	p.atLeast("max-user-rooms", int64(c.MaxUserRooms), 1)
	p.atLeast("log-max-len", int64(c.LogMaxLen), 1)
	if c.LogMaxBytes != 0 {
		p.size("log-max-bytes", c.LogMaxBytes, 64<<10)
	}
	if !(c.SendsPerSecond >= 0) { // not a number is neither
		p.add("sends-per-second", "%v is not 0 or more", c.SendsPerSecond)
	}
	p.atLeast("send-burst", int64(c.SendBurst), 1)
	for _, cidr := range c.TrustedProxies {
		if _, _, err := net.ParseCIDR(cidr); err != nil && net.ParseIP(cidr) == nil {
			p.add("trusted-proxies", "%q is neither a network such as 10.0.0.0/8 nor an address", cidr)
		}
	}
	if c.LogMaxAge != 0 {
		p.duration("log-max-age", c.LogMaxAge, time.Minute, 100*365*24*time.Hour)
	}
	if c.ServerKeyFile != "" {
		if _, err := c.ServerKeys(); err != nil {
			*p = append(*p, err)
		}
	}
}

func (c Sockets) check(p *problems) {
	p.addr("gateway-addr", c.GatewayAddr)
	p.pair("tls-cert", c.TLSCert, "tls-key", c.TLSKey)
	if c.TLSClientCA != "" && c.TLSCert == "" {
		p.add("tls-client-ca", "without --tls-cert no client is asked for a certificate")
	}
	if _, err := c.Proxies(); err != nil {
		*p = append(*p, err)
	}
	p.between("loops", int64(c.Loops), 0, 64)
	p.duration("heartbeat", c.Heartbeat, time.Second, 10*time.Minute)
	p.duration("heartbeat-grace", c.HeartbeatGrace, time.Second, 10*time.Minute)
	p.size("max-handshake", c.MaxHandshake, 1<<10)
	p.duration("handshake-timeout", c.HandshakeTimeout, 100*time.Millisecond, 5*time.Minute)
	p.size("max-frame", c.MaxFrame, 256)
	p.size("max-resume", c.MaxResume, c.MaxFrame)
	p.size("max-poll", c.MaxPoll, 256)
	p.atLeast("frame-burst", int64(c.FrameBurst), 1)
	p.atLeast("frame-rate", int64(c.FrameRate), 1)
	p.size("out-queue", c.OutQueue, 16<<10)
	p.duration("slow-timeout", c.SlowTimeout, time.Second, time.Hour)
	p.atLeast("max-conns", int64(c.MaxConns), 0)
	p.between("max-conns-per-user", int64(c.MaxConnsPerUser), 1, math.MaxUint16) // what presence counts with
	p.atLeast("max-conns-per-addr", int64(c.MaxConnsPerAddr), 0)
	p.atLeast("accept-rate", int64(c.AcceptRate), 0)
	p.atLeast("max-upgrades", int64(c.MaxUpgrades), 1)
	p.between("rebalance", int64(c.Rebalance), 0, 1000)
	p.duration("presence-grace", c.PresenceGrace, 0, 5*time.Minute)
	p.duration("presence-refresh", c.PresenceRefresh, 10*time.Second, 5*time.Minute) // Redis forgets after 10
	p.between("max-watched", int64(c.MaxWatched), 1, 500)                            // what a session reads of one
	p.duration("resume-timeout", c.ResumeTimeout, 100*time.Millisecond, 5*time.Minute)
	p.atLeast("resume-per-room", int64(c.ResumePerRoom), 1)
	p.atLeast("resume-messages", int64(c.ResumeMessages), 1)
}
