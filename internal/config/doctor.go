package config

// Doctor is the configuration of `madang doctor`: Redis as the processes are
// given it, and what this host is for.
type Doctor struct {
	Redis       `kong:"embed,group='Redis',set='redis_url=',set='redis_note= Empty: this host only.'"`
	Roles       []string `name:"role" help:"What this host is for: gateway, api, redis, balancer; several separated by commas. Decides which checks count." default:"gateway,api" enum:"gateway,api,redis,balancer"`
	Connections int64    `help:"Clients this host shall hold: limits below it are errors. 0: say how many it can hold." default:"0"`
	Gateways    int64    `help:"Gateway processes that share this host." default:"1"`
	Fleet       int      `help:"Gateway processes of the whole deployment, for Redis's limits. 0: not known." default:"0"`
	JSON        bool     `name:"json" help:"Print the report as JSON."`
	Strict      bool     `help:"Fail on warnings too."`
}

// Validate reports everything that is wrong, at once.
func (c Doctor) Validate() error {
	var p problems
	if c.Redis.URL == "" && c.RedisFile == "" {
		c.Redis.checkNumbers(&p)
	} else {
		c.Redis.check(&p)
	}
	p.between("connections", c.Connections, 0, 1e9)
	p.between("gateways", c.Gateways, 1, 10_000)
	p.between("fleet", int64(c.Fleet), 0, 1_000_000)
	return p.err()
}
