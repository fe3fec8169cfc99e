package config

import "time"

// Plan is the configuration of `madang plan`.
type Plan struct {
	Connections int64         `help:"Clients connected at once, at the peak." required:"" placeholder:"N"`
	Rooms       int64         `help:"Rooms." required:"" placeholder:"N"`
	Rate        float64       `help:"Messages per second at the peak, all rooms together." required:"" placeholder:"N"`
	Members     float64       `help:"Members of a room on average, connected or not." default:"10"`
	Users       int64         `help:"People who are in rooms. 0: as many as connections." default:"0"`
	MeanRate    float64       `help:"Messages per second over day and night, for what is kept. 0: as the peak." default:"0"`
	Text        Bytes         `help:"Size of a message's text on average." default:"100B"`
	Keep        time.Duration `help:"How long messages are kept (--log-max-age). 0: no limit by age." default:"720h"`
	LogMaxLen   int64         `help:"Messages kept per room, as the API is given it. 0: no limit by count." default:"100000"`

	LargestRoom     float64 `help:"Members of the largest room. 0: none is much larger than the others." default:"0"`
	LargestRoomRate float64 `help:"Messages per second in the largest room." default:"0"`

	Cores       float64       `help:"Cores of a machine." default:"8"`
	Memory      Bytes         `help:"Memory of a machine." default:"32GiB"`
	Network     float64       `help:"Network of a machine, in Gbit/s." default:"10"`
	RedisMemory Bytes         `help:"Memory of a Redis machine." default:"64GiB"`
	Use         float64       `help:"Percent of a machine that may be used at the peak. Higher leaves less for storms and failures." default:"50"`
	Replicas    int           `help:"Replicas of each Redis shard." default:"1"`
	Partitions  int           `help:"Number of partitions, as the processes are given it." default:"256"`
	MaxConns    int64         `help:"Most connections of a gateway, as it is given it. 0: no limit." default:"0"`
	HotTail     Bytes         `help:"Memory per room for its newest messages, as the gateway is given it." default:"64KiB"`
	Window      time.Duration `name:"idempotency-window" help:"How long a repeated Idempotency-Key is known, as the API is given it." default:"10m"`
	JSON        bool          `name:"json" help:"Print the plan as JSON."`
}
