package plan

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"
)

// Load is what is to be carried, at its peak.
type Load struct {
	Connections int64   // clients connected at once
	Users       int64   // who are in rooms; 0: as many as connections
	Rooms       int64   //
	Members     float64 // of a room, connected or not, on average
	Rate        float64 // messages per second, all rooms together
	MeanRate    float64 // the same over day and night; 0: as the peak
	TextBytes   float64 // of a message, on average
	// Keep is how long messages are kept; 0: no limit by age.
	Keep        time.Duration
	KeepPerRoom int64 // messages a room's log keeps at most; 0: no limit
	Window      time.Duration

	// LargestMembers and LargestRate are of the busiest room: it is on one shard
	// and followed by every gateway. 0: no larger than the others.
	LargestMembers, LargestRate float64
}

// Shape is what machines there are and how they are used.
type Shape struct {
	Cores        float64 // of a machine
	MemoryBytes  float64
	NetworkBits  float64 // per second, each way
	RedisBytes   float64 // memory of a Redis shard's machine
	Use          float64 // share of a machine that may be used at the peak
	Replicas     int     // of a shard
	Cluster      bool    // whether Redis is a Cluster: a link per partition
	Partitions   float64
	SocketsEach  int64   // most sockets of a gateway process; 0: no limit
	HotTailBytes float64 // --hot-tail
}

// Costs are the constants as the model uses them, so that a test can hold them
// still.
type Costs map[string]float64

// MeasuredCosts are those of measured.go.
func MeasuredCosts() Costs {
	c := Costs{}
	for _, m := range Constants() {
		c[m.Name] = m.Value
	}
	return c
}

// Numbers of the protocols and defaults that the model needs beside what was
// measured.
const (
	// packetBytes are headers of a segment: Ethernet 14, IPv4 20, TCP with
	// timestamps 32. Each delivery is counted as one, and its acknowledgement too.
	packetBytes = 66
	// canarySeconds is how often a link sends one (DELIVERY L1).
	canarySeconds = 2
	// singleLinks is how many links a gateway has without a Cluster (redisstore.Options).
	singleLinks = 1
	// tailEntries is how many messages a hot tail has at most.
	tailEntries = 64
	// redisShare is the part of a Redis machine's memory that data may take; the
	// rest is for the fork that rewrites the append-only file, and for buffers.
	redisShare = 0.6
	// spare is how many gateways and APIs may be away (dead, or being replaced)
	// while the others carry the load.
	spare = 1
	// Beyond these a number is a typing error.
	maxMachines = 1e9
	maxReplicas = 100
)

// Need is how many machines one resource asks for, were it the only one.
type Need struct {
	Of       string  `json:"of"`
	Total    float64 `json:"total"` // of the whole fleet, in Unit
	Unit     string  `json:"unit"`
	Machines float64 `json:"machines"`
}

// Part is one kind of process.
type Part struct {
	Name     string `json:"name"`
	Machines int64  `json:"machines"` // spares included
	Spare    int64  `json:"spare"`
	Needs    []Need `json:"needs"` // the largest decides
	// Each is what one machine then has: connections, bytes, and so on.
	Each []Need `json:"each"`
}

// Decides is the need that asks for most machines.
func (p Part) Decides() Need {
	best := p.Needs[0]
	for _, n := range p.Needs[1:] {
		if n.Machines > best.Machines {
			best = n
		}
	}
	return best
}

// Plan is the answer.
type Plan struct {
	Load     Load   `json:"load"`
	Shape    Shape  `json:"shape"`
	Gateways Part   `json:"gateways"`
	APIs     Part   `json:"apis"`
	Redis    Part   `json:"redis"`
	First    string `json:"first_bottleneck"`
	// Notes say what the sums do not show: single rooms, storms, limits.
	Notes []string `json:"notes"`
}

// Validate reports everything that makes no sense, at once.
func (l Load) Validate() error {
	var errs []error
	bad := func(is bool, what string) {
		if is {
			errs = append(errs, errors.New(what))
		}
	}
	bad(l.Connections < 1, "connections: at least 1")
	bad(l.Users != 0 && l.Users < l.Connections, "users: not fewer than connections (each connection is somebody's)")
	bad(l.Rooms < 1, "rooms: at least 1")
	people := float64(max(l.Users, l.Connections))
	bad(!within(l.Members, 1, people), "members: at least 1, and not more than users")
	bad(!within(l.Rate, 0, math.MaxFloat64) || !within(l.MeanRate, 0, l.Rate), "rate: a number, not negative, and the mean not above the peak")
	bad(!within(l.TextBytes, 0, math.MaxFloat64) || l.Keep < 0 || l.KeepPerRoom < 0 || l.Window < 0, "text, keep and window: not negative")
	bad(l.Keep == 0 && l.KeepPerRoom == 0, "keep: an age or a number for each room, or logs grow for ever")
	bad(!within(l.LargestMembers, 0, people) || !within(l.LargestRate, 0, l.Rate), "largest room: not negative, of no more than all users, and its rate not above all rooms' together")
	return errors.Join(errs...)
}

// within says whether v is a number from low to high.
func within(v, low, high float64) bool { return v >= low && v <= high }

// Validate reports everything that makes no sense, at once.
func (s Shape) Validate() error {
	var errs []error
	for _, v := range []float64{s.Cores, s.MemoryBytes, s.NetworkBits, s.RedisBytes} {
		if v <= 0 || !within(v, 0, math.MaxFloat64) {
			errs = append(errs, errors.New("cores, memory and network of a machine: more than 0"))
			break
		}
	}
	if s.Use <= 0 || !within(s.Use, 0, 1) {
		errs = append(errs, errors.New("use: a share above 0 and up to 1"))
	}
	if s.Replicas < 0 || s.Replicas > maxReplicas {
		errs = append(errs, fmt.Errorf("replicas: between 0 and %d", maxReplicas))
	}
	if !within(s.Partitions, 1, math.MaxFloat64) {
		errs = append(errs, errors.New("partitions: at least 1"))
	}
	if s.SocketsEach < 0 || !within(s.HotTailBytes, 0, math.MaxFloat64) {
		errs = append(errs, errors.New("sockets of a gateway and hot tail: not negative"))
	}
	return errors.Join(errs...)
}

// Make computes the plan.
func Make(l Load, s Shape, c Costs) (Plan, error) {
	if err := errors.Join(l.Validate(), s.Validate()); err != nil {
		return Plan{}, err
	}
	l.Users = cmp.Or(l.Users, l.Connections)
	l.MeanRate = cmp.Or(l.MeanRate, l.Rate)
	m := model{l, s, c}
	p := Plan{Load: l, Shape: s}
	// How many gateways follow a room depends on how many there are: go on until
	// it stands still. It rises with each step, and is bounded.
	g := 1.0
	for range 100 {
		p.Gateways = m.gateways(g)
		next := float64(p.Gateways.Machines)
		if next == g {
			break
		}
		g = next
	}
	p.APIs = m.apis()
	p.Redis = m.redis(g)
	for _, part := range []Part{p.Gateways, p.APIs, p.Redis} {
		for _, n := range part.Needs {
			if !within(n.Machines, 0, maxMachines) {
				return Plan{}, fmt.Errorf("the %s of the %s would take more than %d machines: is a number mistyped?", n.Of, part.Name, int64(maxMachines))
			}
		}
	}
	p.First = m.first(p)
	p.Notes = m.notes(p)
	return p, nil
}

type model struct {
	l Load
	s Shape
	c Costs
}

// online is how many members of a room are connected, on average.
func (m model) online() float64 {
	return m.l.Members * float64(m.l.Connections) / float64(m.l.Users)
}

func (m model) roomsPerUser() float64 {
	return float64(m.l.Rooms) * m.l.Members / float64(m.l.Users)
}

// followers is on how many of g gateways a room has a connected member, when
// they are spread at random.
func (m model) followers(g float64) float64 {
	return g * (1 - math.Pow(1-1/g, m.online()))
}

func (m model) deliveries() float64 { return m.l.Rate * m.online() }

func (m model) connBytes() float64 {
	return m.c["GatewayBytesPerConn"] + max(0, m.roomsPerUser()-1)*m.c["GatewayBytesPerMembership"]
}

// tailBytes is the most that a followed room's hot tail takes.
func (m model) tailBytes() float64 {
	return min(m.s.HotTailBytes, tailEntries*(m.c["FrameBytes"]+m.l.TextBytes))
}

func (m model) gateways(g float64) Part {
	conns := float64(m.l.Connections)
	cpu := m.l.Rate*m.followers(g)*m.c["GatewayMicrosPerMessage"] + m.deliveries()*m.c["GatewayMicrosPerDelivery"] + conns*m.c["GatewayMicrosPerMinute"]/60
	// Rooms that somebody follows, over all gateways.
	followed := float64(m.l.Rooms) * m.followers(g)
	process := conns*m.connBytes() + followed*m.tailBytes()
	kernel := conns * m.c["KernelBytesPerSocket"]
	out := (m.deliveries()*(m.c["FrameBytes"]+m.l.TextBytes+packetBytes) + m.l.Rate*m.followers(g)*packetBytes) * 8
	p := Part{Name: "gateways", Spare: spare, Needs: []Need{
		{"CPU", cpu / 1e6, "cores", cpu / 1e6 / m.s.Cores / m.s.Use},
		{"memory", process + kernel, "bytes", (process + kernel) / m.s.MemoryBytes / m.s.Use},
		{"network", out, "bits/s", out / m.s.NetworkBits / m.s.Use},
	}}
	if m.s.SocketsEach > 0 {
		p.Needs = append(p.Needs, Need{"sockets", conns, "", conns / float64(m.s.SocketsEach)})
	}
	p.Machines = machines(p.Decides().Machines) + spare
	n := float64(p.Machines)
	p.Each = []Need{
		{Of: "connections", Total: conns / n},
		{Of: "process memory", Total: process / n, Unit: "bytes"},
		{Of: "kernel sockets", Total: kernel / n, Unit: "bytes"},
		{Of: "deliveries", Total: m.deliveries() / n, Unit: "/s"},
		{Of: "CPU", Total: cpu / 1e6 / n, Unit: "cores"},
		{Of: "network out", Total: out / n, Unit: "bits/s"},
	}
	return p
}

func (m model) apis() Part {
	cpu := m.l.Rate * m.c["APIMicrosPerSend"]
	p := Part{Name: "APIs", Spare: spare, Needs: []Need{{"CPU", cpu / 1e6, "cores", cpu / 1e6 / m.s.Cores / m.s.Use}}}
	p.Machines = machines(p.Needs[0].Machines) + spare
	n := float64(p.Machines)
	p.Each = []Need{{Of: "sends", Total: m.l.Rate / n, Unit: "/s"}, {Of: "CPU", Total: cpu / 1e6 / n, Unit: "cores"}}
	return p
}

// kept is how many messages are in all logs together.
func (m model) kept() float64 {
	n := math.Inf(1)
	if m.l.Keep > 0 {
		n = m.l.MeanRate * m.l.Keep.Seconds()
	}
	if m.l.KeepPerRoom > 0 {
		n = min(n, float64(m.l.KeepPerRoom)*float64(m.l.Rooms))
	}
	return n
}

// canaries per second, of all gateways together.
func (m model) canaries(g float64) float64 {
	links := float64(singleLinks)
	if m.s.Cluster {
		links = m.s.Partitions
	}
	return g * links / canarySeconds
}

func (m model) redis(g float64) Part {
	cpu := m.l.Rate*(m.c["RedisMicrosPerSend"]+m.followers(g)*m.c["RedisMicrosPerFollower"]) + m.canaries(g)*m.c["RedisMicrosPerCanary"] +
		float64(m.l.Connections)*m.c["RedisMicrosPerUserMinute"]/60 + g*g*m.c["RedisMicrosPerLeaseRead"]
	rooms := float64(m.l.Rooms)
	bytes := float64(m.l.Connections)*m.c["RedisBytesPerOnlineUser"] + rooms*m.c["RedisBytesPerRoom"] + rooms*m.l.Members*m.c["RedisBytesPerMembership"] +
		m.kept()*(m.c["RedisBytesPerMessage"]+m.l.TextBytes) + m.l.Rate*m.l.Window.Seconds()*m.c["RedisBytesPerIdempotencyKey"]
	out := (m.l.Rate*m.c["LinkBytes"] + m.l.Rate*m.followers(g)*(m.c["FrameBytes"]+m.l.TextBytes+packetBytes)) * 8
	p := Part{Name: "Redis shards", Needs: []Need{
		// One thread runs commands: a shard is one core, whatever the machine has.
		{"CPU", cpu / 1e6, "cores", cpu / 1e6 / m.s.Use},
		{"memory", bytes, "bytes", bytes / m.s.RedisBytes / redisShare},
		{"network", out, "bits/s", out / m.s.NetworkBits / m.s.Use},
	}}
	p.Machines = machines(p.Decides().Machines)
	n := float64(p.Machines)
	p.Each = []Need{
		{Of: "data", Total: bytes / n, Unit: "bytes"},
		{Of: "CPU", Total: cpu / 1e6 / n, Unit: "cores"},
		{Of: "network out", Total: out / n, Unit: "bits/s"},
		{Of: "gateways' connections", Total: m.linksPerShard(g, n)},
	}
	return p
}

// linksPerShard is how many subscriber connections a shard holds.
func (m model) linksPerShard(g, shards float64) float64 {
	if m.s.Cluster {
		return g * m.s.Partitions / shards
	}
	return g * singleLinks
}

// machines is how many whole ones. Above maxMachines there is no plan.
func machines(n float64) int64 { return max(1, int64(math.Ceil(min(n, 2*maxMachines)-1e-9))) }

// first says what runs out first when everything grows alike: the resource that
// is nearest to its machines' limit.
func (m model) first(p Plan) string {
	worst, name := 0.0, ""
	for _, part := range []Part{p.Gateways, p.APIs, p.Redis} {
		d := part.Decides()
		if fill := d.Machines / float64(part.Machines-part.Spare); fill > worst {
			worst, name = fill, fmt.Sprintf("%s of the %s (%.0f %% of what is planned)", d.Of, part.Name, 100*fill)
		}
	}
	return name
}

func (m model) notes(p Plan) []string {
	var notes []string
	say := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	g := float64(p.Gateways.Machines)

	// A gateway dies: its clients come back to the others, which go on working.
	if g > 1 {
		back := float64(m.l.Connections) / g * m.c["GatewayMicrosPerOpen"] / 1e6
		idle := (g - 1) * m.s.Cores * (1 - m.s.Use)
		if m.s.Use < 1 {
			say("A gateway that dies sends %s clients to the others: %.1f s of CPU, done in about %.1f s on what they have to spare.", count(float64(m.l.Connections)/g), back, back/idle)
		}
	}
	if f := m.followers(g); g > 1 {
		say("A message goes to %.1f of %d gateways on average: each is a copy that Redis sends.", f, p.Gateways.Machines)
	}
	if m.l.LargestRate > 0 {
		shard := m.l.LargestRate * (m.c["RedisMicrosPerSend"] + g*m.c["RedisMicrosPerFollower"]) / 1e6
		online := m.l.LargestMembers * float64(m.l.Connections) / float64(m.l.Users)
		each := m.l.LargestRate * (m.c["GatewayMicrosPerMessage"] + online/g*m.c["GatewayMicrosPerDelivery"]) / 1e6
		say("The largest room is on one shard and on every gateway: %.2f cores of its shard, %.2f cores of each gateway.", shard, each)
		if shard > m.s.Use {
			say("LIMIT: one room cannot be spread over shards, and this one needs more than a shard may give: its senders will be held back (429).")
		}
		if each > m.s.Cores*m.s.Use {
			say("LIMIT: more gateways, or larger ones: each must deliver the largest room to its share of the members.")
		}
	}
	if p.Redis.Machines > 1 && !m.s.Cluster {
		say("LIMIT: more than one shard needs a Redis Cluster.")
	}
	if p.Redis.Machines > int64(m.s.Partitions) {
		say("LIMIT: a partition is on one shard, and there are %.0f: more shards than that get no work. P is fixed for a deployment: choose it larger at the start.", m.s.Partitions)
	}
	if share := m.canaries(g) * m.c["RedisMicrosPerCanary"] / 1e6 / float64(p.Redis.Machines); share > 0.1 {
		say("LIMIT: canaries alone (%s/s of %d gateways) are %.0f %% of each shard: fewer, larger gateways, or several deployments side by side.", count(m.canaries(g)), p.Gateways.Machines, 100*share)
	}
	if share := g * g * m.c["RedisMicrosPerLeaseRead"] / 1e6 / float64(p.Redis.Machines); share > 0.1 {
		say("LIMIT: every gateway reads every lease every second: %s reads/s are %.0f %% of each shard: several deployments side by side.", count(g*g), 100*share)
	}
	if links := m.linksPerShard(g, float64(p.Redis.Machines)); links > 8000 {
		say("LIMIT: %s subscriber connections per shard: maxclients must be raised (10,000 by default), and each costs buffers.", count(links))
	}
	if m.s.SocketsEach == 0 {
		if per := float64(m.l.Connections) / g; per > 64_000 {
			say("%s clients per gateway: behind a balancer with one source address a gateway's address and port take 64,512; give it several of either.", count(per))
		}
	}
	return notes
}
