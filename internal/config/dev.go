package config

// Dev is the configuration of `madang dev`: everything in one process.
type Dev struct {
	Process  `kong:"embed,group='Process',set='admin_addr=127.0.0.1:9090',set='log_format=text'"`
	Redis    `kong:"embed,group='Redis',set='redis_url=',set='redis_note= Empty: an embedded one that forgets everything at the end.'"`
	Auth     `embed:"" group:"Authentication"`
	Origins  `kong:"embed,group='Authentication',set='origins_note= Empty: any at the gateway. Otherwise the page of dev may as well, at localhost.'"`
	HTTP     `embed:"" group:"HTTP API"`
	Files    `kong:"embed,group='Attachments',set='blob_note= Empty: one that is removed at the end.'"`
	Sockets  `embed:"" group:"Gateway"`
	Receipts `embed:"" group:"Gateway"`
}

// Validate reports everything that is wrong, at once. Neither Redis nor a secret
// needs to be given: dev brings its own.
func (c Dev) Validate() error {
	var p problems
	c.Process.check(&p)
	if c.Redis.URL == "" && c.RedisFile == "" {
		c.Redis.checkNumbers(&p)
	} else {
		c.Redis.check(&p)
	}
	c.Auth.checkGiven(&p)
	c.Origins.check(&p)
	c.HTTP.check(&p)
	c.Sockets.check(&p)
	c.Receipts.check(&p)
	c.Files.check(&p)
	return p.err()
}

// API is the part that the API in dev is built from.
func (c Dev) API() API {
	return API{Process: c.Process, Redis: c.Redis, Auth: c.Auth, Origins: c.Origins, HTTP: c.HTTP, Receipts: c.Receipts, Files: c.Files}
}

// Gateway is the part that the gateway in dev is built from.
func (c Dev) Gateway() Gateway {
	return Gateway{Process: c.Process, Redis: c.Redis, Auth: c.Auth, Origins: c.Origins, Sockets: c.Sockets, Receipts: c.Receipts}
}
