package plan

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/madang-chat/madang/internal/redisstore"
)

var update = flag.Bool("update", false, "write testdata anew")

// round are costs that are easy to reckon with, whatever was measured last.
var round = Costs{
	"KernelBytesPerSocket": 4000, "GatewayBytesPerConn": 1000, "GatewayBytesPerMembership": 100,
	"GatewayMicrosPerOpen": 100, "GatewayMicrosPerMinute": 60, "GatewayMicrosPerMessage": 100, "GatewayMicrosPerDelivery": 5,
	"FrameBytes": 200, "LinkBytes": 300, "APIMicrosPerSend": 50,
	"RedisMicrosPerSend": 20, "RedisMicrosPerFollower": 1, "RedisMicrosPerCanary": 10, "RedisMicrosPerUserMinute": 6, "RedisMicrosPerLeaseRead": 1, "RedisBytesPerOnlineUser": 400,
	"RedisBytesPerRoom": 400, "RedisBytesPerMembership": 100, "RedisBytesPerMessage": 200, "RedisBytesPerIdempotencyKey": 200,
}

var machine = Shape{Cores: 8, MemoryBytes: 32 << 30, NetworkBits: 10e9, RedisBytes: 64 << 30, Use: 0.5, Replicas: 1, Partitions: 256, HotTailBytes: 64 << 10}

func ten(m Shape) Shape { m.Cluster = true; return m }

var cases = map[string]struct {
	load  Load
	shape Shape
}{
	"ten-thousand": {Load{Connections: 10_000, Users: 20_000, Rooms: 5_000, Members: 10, Rate: 200, MeanRate: 50, TextBytes: 100, Keep: 30 * 24 * time.Hour, KeepPerRoom: 100_000, Window: 10 * time.Minute}, machine},
	"one-million": {Load{Connections: 1_000_000, Users: 2_000_000, Rooms: 500_000, Members: 10, Rate: 20_000, MeanRate: 5_000, TextBytes: 100, Keep: 30 * 24 * time.Hour, KeepPerRoom: 100_000, Window: 10 * time.Minute,
		LargestMembers: 100_000, LargestRate: 10}, ten(machine)},
	"hundred-million": {Load{Connections: 100_000_000, Users: 200_000_000, Rooms: 50_000_000, Members: 10, Rate: 2_000_000, MeanRate: 500_000, TextBytes: 100, Keep: 7 * 24 * time.Hour, KeepPerRoom: 100_000, Window: 10 * time.Minute,
		LargestMembers: 100_000, LargestRate: 2000}, ten(machine)},
}

func TestPlansReadAsBefore(t *testing.T) {
	keep := measuredOn
	measuredOn = Machine{Date: "2000-01-01", CPU: "a CPU", Cores: 2, Redis: "7.0.0"}
	defer func() { measuredOn = keep }()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p, err := Make(c.load, c.shape, round)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := p.WriteText(&b); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("got\n%s\nwant\n%s", b.String(), want)
			}
			var js bytes.Buffer
			if err := p.WriteJSON(&js); err != nil || !strings.Contains(js.String(), `"first_bottleneck"`) {
				t.Errorf("JSON: %v\n%s", err, js.String())
			}
		})
	}
}

// One plan reckoned by hand.
func TestTheArithmetic(t *testing.T) {
	l := Load{Connections: 100_000, Rooms: 10_000, Members: 20, Rate: 1000, TextBytes: 100, Keep: time.Hour, Window: time.Minute}
	s := machine
	s.HotTailBytes = 0
	p, err := Make(l, s, round)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-6*math.Abs(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	// 200,000 memberships of 100,000 users: two rooms each.
	near("memory", p.Gateways.Needs[1].Total, 100_000*(4000+1000+100))
	// All members are connected; with one gateway and one spare, nearly all rooms are on both.
	g := float64(p.Gateways.Machines)
	follow := g * (1 - math.Pow(1-1/g, 20))
	near("gateway CPU", p.Gateways.Needs[0].Total, (1000*follow*100+20_000*5+100_000*60/60)/1e6)
	near("network", p.Gateways.Needs[2].Total, (20_000*(200+100+66)+1000*follow*66)*8)
	near("API CPU", p.APIs.Needs[0].Total, 1000*50/1e6)
	near("Redis CPU", p.Redis.Needs[0].Total, (1000*(20+follow*1)+g*1/2*10+100_000*6/60+g*g*1)/1e6)
	near("Redis memory", p.Redis.Needs[1].Total, 100_000*400+10_000*400+200_000*100+3_600_000*(200+100)+60_000*200)
}

// What is reckoned with is what a gateway does.
func TestLinksAreAsManyAsAGatewayHas(t *testing.T) {
	s, err := redisstore.Open(redisstore.Options{URL: "redis://127.0.0.1:1"}) // which nobody talks to
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Links() != singleLinks {
		t.Errorf("a gateway has %d links without a Cluster, the plan reckons with %d", s.Links(), singleLinks)
	}
}

// Whatever the load, what is planned is enough, and more load never needs less.
func TestPlansCoverTheirLoad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Load{
			Connections: rapid.Int64Range(1, 200_000_000).Draw(t, "connections"),
			Rooms:       rapid.Int64Range(1, 100_000_000).Draw(t, "rooms"),
			Rate:        rapid.Float64Range(0, 5_000_000).Draw(t, "rate"),
			TextBytes:   rapid.Float64Range(0, 8000).Draw(t, "text"),
			Keep:        time.Duration(rapid.Int64Range(1, 1000).Draw(t, "keep")) * time.Hour,
			Window:      10 * time.Minute,
		}
		l.Members = rapid.Float64Range(1, float64(min(l.Connections, 100_000))).Draw(t, "members")
		s := machine
		s.Cluster = rapid.Bool().Draw(t, "cluster")
		refused := func(l Load, err error) {
			absurd := l.Rate*l.Members > 1e10 || float64(l.Rooms)*l.Members > 1e11
			if err != nil && absurd && strings.Contains(err.Error(), "mistyped") {
				t.Skip("more deliveries, or memberships, than the world has machines for")
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		p, err := Make(l, s, round)
		refused(l, err)
		for _, part := range []Part{p.Gateways, p.APIs, p.Redis} {
			for _, n := range part.Needs {
				if math.IsNaN(n.Total) || n.Total < 0 || n.Machines > float64(part.Machines-part.Spare)+1e-6 {
					t.Fatalf("%s: %s needs %v of %d machines", part.Name, n.Of, n.Machines, part.Machines)
				}
			}
		}
		twice := l
		twice.Rate, twice.Connections = 2*l.Rate, 2*l.Connections
		q, err := Make(twice, s, round)
		refused(twice, err)
		if q.Gateways.Machines < p.Gateways.Machines || q.APIs.Machines < p.APIs.Machines {
			t.Fatalf("twice the load needs fewer: %+v, %+v", p, q)
		}
	})
}

func TestNonsenseIsRefusedAtOnce(t *testing.T) {
	_, err := Make(Load{Members: 0.5, MeanRate: 5, Rate: 1}, Shape{}, round)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, word := range []string{"connections", "rooms", "members", "mean", "cores"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q is not in %q", word, err)
		}
	}
}

// As the API has it: messages are kept for an age, or a number, or both.
func TestWithoutAnAgeTheNumberIsWhatIsKept(t *testing.T) {
	l := Load{Connections: 1000, Rooms: 100, Members: 10, Rate: 100, TextBytes: 100, KeepPerRoom: 10_000}
	p, err := Make(l, machine, round)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Redis.Needs[1].Total, 1000*400+100*400+1000*100+1e6*(200+100); math.Abs(got-want) > 1 {
		t.Errorf("Redis memory %v, want %v", got, want)
	}
	l.KeepPerRoom = 0
	if _, err := Make(l, machine, round); err == nil || !strings.Contains(err.Error(), "keep") {
		t.Errorf("logs that grow for ever: %v", err)
	}
}

// What can't be meant is refused, and not reckoned with until it is small again.
func TestANumberThatCannotBeMeantIsRefused(t *testing.T) {
	usual := Load{Connections: 1000, Rooms: 100, Members: 10, Rate: 100, TextBytes: 100, Keep: time.Hour, Window: time.Minute}
	if _, err := Make(usual, machine, round); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Load, *Shape)
		says   string
	}{
		"a rate that is no number":   {func(l *Load, _ *Shape) { l.Rate = math.NaN() }, "rate"},
		"a rate without end":         {func(l *Load, _ *Shape) { l.Rate = math.Inf(1) }, "rate"},
		"a mean that is no number":   {func(l *Load, _ *Shape) { l.MeanRate = math.NaN() }, "rate"},
		"an absurd rate":             {func(l *Load, _ *Shape) { l.Rate = 1e30 }, "machines"},
		"absurd connections":         {func(l *Load, _ *Shape) { l.Connections = math.MaxInt64 }, "machines"},
		"absurd rooms":               {func(l *Load, _ *Shape) { l.Rooms = math.MaxInt64 }, "machines"},
		"members that are no number": {func(l *Load, _ *Shape) { l.Members = math.NaN() }, "members"},
		"more members than people":   {func(l *Load, _ *Shape) { l.Members = 1001 }, "members"},
		"a room of more than all":    {func(l *Load, _ *Shape) { l.LargestMembers, l.LargestRate = 1001, 1 }, "largest room"},
		"a large room's rate":        {func(l *Load, _ *Shape) { l.LargestRate = math.NaN() }, "largest room"},
		"text that is no number":     {func(l *Load, _ *Shape) { l.TextBytes = math.NaN() }, "text"},
		"a share that is no number":  {func(_ *Load, s *Shape) { s.Use = math.NaN() }, "use"},
		"cores without end":          {func(_ *Load, s *Shape) { s.Cores = math.Inf(1) }, "cores"},
		"next to no network":         {func(_ *Load, s *Shape) { s.NetworkBits = 1e-300 }, "machines"},
		"fewer than no replicas":     {func(_ *Load, s *Shape) { s.Replicas = -1 }, "replicas"},
		"absurd replicas":            {func(_ *Load, s *Shape) { s.Replicas = 1 << 40 }, "replicas"},
		"no partitions":              {func(_ *Load, s *Shape) { s.Partitions = 0 }, "partitions"},
		"fewer than no sockets":      {func(_ *Load, s *Shape) { s.SocketsEach = -1 }, "sockets"},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := usual, machine
			c.change(&l, &s)
			if p, err := Make(l, s, round); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want something with %q; %d gateways, %d shards", err, c.says, p.Gateways.Machines, p.Redis.Machines)
			}
		})
	}
}

func TestEveryConstantIsMeasuredAndWrittenBack(t *testing.T) {
	for _, c := range Constants() {
		if c.Value <= 0 || c.What == "" || c.Unit == "" {
			t.Errorf("%+v is not a measured figure", c)
		}
	}
	if len(Constants()) != len(measured) {
		t.Errorf("%d constants, %d measured", len(Constants()), len(measured))
	}
	got := string(Source(Constants(), measuredOn))
	want, err := os.ReadFile("measured.go")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("measured.go is not what %s writes:\n%s", Command, got)
	}
}
