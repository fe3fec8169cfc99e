package config

import "time"

// Sockets is the receivers' side: the sockets and what each may cost.
type Sockets struct {
	GatewayAddr string `name:"gateway-addr" help:"Address that clients' sockets connect to." default:":8081" placeholder:"HOST:PORT"`
	Loops       int    `help:"Event loops, 64 at most. 0: one per core." default:"0"`

	TLSCert           string   `name:"tls-cert" help:"PEM file of the gateway's certificate chain; with --tls-key the gateway speaks TLS. Files that are renewed are served to new connections within seconds. TLS costs about 12 KB of memory a connection, which a balancer that ends it saves." placeholder:"FILE" type:"path"`
	TLSKey            string   `name:"tls-key" help:"PEM file of the certificate's key." placeholder:"FILE" type:"path"`
	TLSClientCA       string   `name:"tls-client-ca" help:"PEM file of authorities: clients need a certificate of one of them. Empty: none is asked for." placeholder:"FILE" type:"path"`
	ProxyProtocolFrom []string `name:"proxy-protocol-from" help:"Networks (CIDR) of balancers that say in a PROXY protocol header (v1 or v2) who the client is. From them the header is needed, from others it is refused." placeholder:"CIDR"`

	Heartbeat      time.Duration `help:"Silence after which a client is pinged (SSE: sent a comment); each connection has 80 to 100 % of it, so that they are not pinged together. Longer notices dead sockets later; shorter costs CPU and wakes phones." default:"25s"`
	HeartbeatGrace time.Duration `help:"How long a pinged client may stay silent before it is closed." default:"10s"`

	MaxHandshake     Bytes         `help:"Largest head of an upgrade request." default:"8KiB"`
	HandshakeTimeout time.Duration `help:"How long a request may take to arrive, and its body again. Longer lets idle attackers hold more sockets; shorter cuts off slow phones." default:"5s"`
	MaxFrame         Bytes         `help:"Largest message a client may send up the socket." default:"16KiB"`
	MaxResume        Bytes         `help:"Largest resume frame, about 40 bytes per room. Who has more sends several." default:"256KiB"`
	MaxPoll          Bytes         `help:"Largest body of a poll, or of a request for events: positions in all of a user's rooms, 40 to 110 bytes each. Smaller than what --max-user-rooms may need refuses, for good, users who have that many." default:"1280KiB"`
	FrameBurst       int           `help:"Messages a client may send up the socket at once, before --frame-rate counts." default:"40"`
	FrameRate        int           `help:"Messages per second a client may send up the socket in the long run." default:"20"`
	OutQueue         Bytes         `help:"Bytes queued for a socket that does not keep up. Larger costs memory when many are slow; smaller sends clients to the log sooner." default:"256KiB"`
	SlowTimeout      time.Duration `help:"How long a socket may stay behind before it is closed with 4008." default:"30s"`

	Compression bool `help:"Agree to compress messages (permessage-deflate) with clients that offer it. Each is compressed once, whatever the number of receivers; a connection costs no memory for it." default:"true" negatable:""`

	MaxConns        int   `help:"Most connections of this process. 0: as many as memory and descriptors allow." default:"0"`
	MaxConnsPerUser int   `help:"Most connections of a user on this gateway." default:"20"`
	MaxConnsPerAddr int   `help:"Most connections of one address (of an IPv6 /64). 0: no limit. Behind a balancer that does not say who the client is (--proxy-protocol-from), all have its address." default:"0"`
	AcceptRate      int   `help:"Most connections accepted in a second; more wait in the kernel's queue. 0: no limit. Lower lets a storm delay those who come, higher those who are in." default:"25000"`
	MaxUpgrades     int   `help:"Upgrades in flight; more wait in the kernel's queue. More lets a storm delay everybody." default:"4096"`
	Rebalance       int   `help:"Percent above the mean of the fleet's gateways from which some clients at a time are asked to move, after others have joined. Lower evens out more and moves more clients. 0: nobody is asked." default:"20"`
	HotTail         Bytes `help:"Memory per room for its newest messages, from which reconnecting clients are served without asking Redis. 0: none, and every one of them costs a read." default:"64KiB"`

	PresenceGrace   time.Duration `help:"How long a user without a connection stays online. Longer hides longer reconnects; shorter tells sooner who left." default:"5s"`
	PresenceRefresh time.Duration `help:"How often it is said again in Redis who is online. Shorter heals sooner what Redis lost unnoticed; every user costs two Redis commands each time." default:"4m"`
	MaxWatched      int           `help:"Most users whose presence a connection watches. On a socket they must fit into --max-frame: some 400 names of 36 characters do; POST /v1/watch takes as many as --max-body." default:"500"`

	ResumeTimeout  time.Duration `help:"How long a resuming client may take, after hello, to send its positions." default:"5s"`
	ResumePerRoom  int           `help:"Missed messages a resume pushes per room; beyond that the client is told to page (gap)." default:"500"`
	ResumeMessages int           `help:"Missed messages a resume pushes per connection." default:"5000"`
}

// Gateway is the configuration of `madang gateway`.
type Gateway struct {
	Process  `kong:"embed,group='Process',set='admin_addr=127.0.0.1:9091',set='log_format=json'"`
	Redis    `kong:"embed,group='Redis',set='redis_url=redis://127.0.0.1:6379/0',set='redis_note='"`
	Auth     `embed:"" group:"Authentication"`
	Origins  `kong:"embed,group='Authentication',set='origins_note= Empty: those of its own host.'"`
	Sockets  `embed:"" group:"Gateway"`
	Receipts `embed:"" group:"Gateway"`
}

// Validate reports everything that is wrong, at once.
func (c Gateway) Validate() error {
	var p problems
	c.Process.check(&p)
	c.Redis.check(&p)
	c.Auth.check(&p)
	c.Origins.check(&p)
	c.Sockets.check(&p)
	c.Receipts.check(&p)
	return p.err()
}
