package config

import "time"

// HTTP is the senders' side.
type HTTP struct {
	APIAddr           string        `name:"api-addr" help:"Address of the HTTP API." default:":8080" placeholder:"HOST:PORT"`
	APITLSCert        string        `name:"api-tls-cert" help:"PEM file of the API's certificate chain; with --api-tls-key the API speaks TLS. Files that are renewed are served to new connections within seconds." placeholder:"FILE" type:"path"`
	APITLSKey         string        `name:"api-tls-key" help:"PEM file of the certificate's key." placeholder:"FILE" type:"path"`
	ServerKeyFile     string        `help:"File with keys of the team's own back end, one per line, at least 32 bytes each. Whoever has one may do everything, as any user." placeholder:"FILE" type:"path"`
	MaxBody           Bytes         `help:"Largest HTTP body. Larger lets one request hold more memory." default:"64KiB"`
	MaxText           int           `help:"Longest text of a message, in characters." default:"8000"`
	MaxAnswers        Bytes         `help:"Memory that answers to reads (history, rooms, members, presence) may take in one process while clients take them; an eighth of it, those of one user. Beyond it reads are answered 503, or 429, until some are through. A memory limit should be 64MiB more at the least. Larger lets slow clients hold more; smaller refuses more when many are slow." default:"128MiB"`
	SendsPerSecond    float64       `help:"Messages per second a user may send through one process in the long run; a new room counts as one. 0: no limit, as one token may be a whole load. Server keys have none. Set it (50, say) when users are strangers." default:"0"`
	SendBurst         int           `help:"Messages a user may send at once, before --sends-per-second counts." default:"100"`
	TrustedProxies    []string      `help:"Networks (CIDR) whose X-Forwarded-For is believed in the log." placeholder:"CIDR"`
	IdempotencyWindow time.Duration `help:"How long a repeated Idempotency-Key is known. Longer costs about 220 bytes of Redis memory per message and window; shorter lets a late retry make a second message." default:"10m"`
	MaxRoomMembers    int           `help:"Most members of a room. Each costs Redis memory, and every message is delivered to each." default:"100000"`
	MaxUserRooms      int           `help:"Most rooms of a user. Each is followed when the user connects, which holds Redis up for 0.5 ms at 1,000 rooms and for 10 ms at 10,000, and so does the first page of their list." default:"10000"`
	ShowFocus         bool          `help:"Tell everybody who asks which rooms a user is looking at. Server keys are always told."`
	LogMaxLen         int           `help:"Messages kept per room, approximately. More costs Redis memory; fewer turns long absences into gaps." default:"100000"`
	LogMaxAge         time.Duration `help:"How long messages are kept. 0: no limit by age. Another age holds for a room from its next message on; until then its log goes when the old one said." default:"0"`
	LogMaxBytes       Bytes         `help:"Redis memory that a room's messages may take, approximately. 0: no limit by size. A server key can set all three for single rooms." default:"0"`
}

// API is the configuration of `madang api`.
type API struct {
	Process  `kong:"embed,group='Process',set='admin_addr=127.0.0.1:9090',set='log_format=json'"`
	Redis    `kong:"embed,group='Redis',set='redis_url=redis://127.0.0.1:6379/0',set='redis_note='"`
	Auth     `embed:"" group:"Authentication"`
	Origins  `kong:"embed,group='Authentication',set='origins_note= Empty: those of its own host.'"`
	HTTP     `embed:"" group:"HTTP API"`
	Receipts `embed:"" group:"HTTP API"`
	Files    `kong:"embed,group='Attachments',set='blob_note= Empty: nothing can be attached.'"`
}

// Validate reports everything that is wrong, at once.
func (c API) Validate() error {
	var p problems
	c.Process.check(&p)
	c.Redis.check(&p)
	c.Auth.check(&p)
	c.Origins.check(&p)
	c.HTTP.check(&p)
	c.Receipts.check(&p)
	c.Files.check(&p)
	return p.err()
}
