package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

// constants are the results, by the name that internal/plan gives them.
type constants map[string]float64

// How much is measured. Enough that the kernel's 10 ms ticks are below 2 %.
const (
	idleUsers   = 18_000 // below a hard limit of 20,000 files, with room for the rest
	roomSize    = 100
	manyRooms   = 10
	idleFor     = 60 * time.Second
	loadFor     = 10 * time.Second
	textChars   = 100
	bigRoom     = 1000 // members
	bigRate     = 50   // messages per second
	smallRooms  = 1000
	smallSize   = 10
	smallRate   = 1000
	sendRate    = 2000 // where only the number matters
	sendsAtOnce = 32
	subscribers = 8
)

var text = strings.Repeat("x", textChars)

// sockets: what the kernel keeps for an idle TCP socket.
func sockets(string, constants) (c constants, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	const pairs = 8000
	accepted := make(chan net.Conn, pairs)
	go func() { // ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	var samples []float64
	for range 3 {
		time.Sleep(time.Second) // sockets of the round before are freed a moment later
		before := kilobytes("/proc/meminfo", "Slab")
		conns := make([]net.Conn, 0, 2*pairs)
		for range pairs {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				return nil, err
			}
			conns = append(conns, conn, <-accepted)
		}
		samples = append(samples, (kilobytes("/proc/meminfo", "Slab")-before)/(2*pairs))
		for _, conn := range conns {
			_ = conn.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
			_ = conn.Close()
		}
	}
	slices.Sort(samples)
	return constants{"KernelBytesPerSocket": samples[1]}, nil
}

// idle: what an idle client costs a gateway, in one room and in more.
func idle(binary string, _ constants) (constants, error) {
	users := make([]string, idleUsers)
	for i := range users {
		users[i] = user(i)
	}
	// held is what one client cost.
	type held struct{ bytes, open, minute, redisBytes, redisMinute float64 }
	hold := func(roomsEach int, minute bool) (h held, err error) {
		f, err := startFleet(binary, true)
		if err != nil {
			return h, err
		}
		defer f.stop()
		groups := idleUsers / roomSize
		err = inParallel(groups*roomsEach, 8, func(i int) error {
			// Room i of a set mixes other users than the same room of the set before.
			set, g := i/groups, i%groups
			members := make([]string, roomSize)
			for m := range members {
				members[m] = users[(g+m*(groups+set)+set)%idleUsers]
			}
			return f.room(fmt.Sprintf("r%d-%d", set, g), members)
		})
		if err != nil {
			return h, err
		}
		time.Sleep(2 * time.Second) // the outbox is swept
		redisIdle := f.redis.CPU()
		time.Sleep(10 * time.Second)
		redisIdle = f.redis.CPU() - redisIdle
		before, cpu, memory := f.gateway.rss(), f.gateway.cpu(), redisInfo(f.redis, "memory", "used_memory_dataset")
		c, err := f.connect(users)
		if err != nil {
			return h, err
		}
		defer c.close()
		h.open = float64(f.gateway.cpu()-cpu) / float64(time.Microsecond) / idleUsers
		time.Sleep(10 * time.Second)
		h.bytes = (f.gateway.rss() - before) / idleUsers
		h.redisBytes = (redisInfo(f.redis, "memory", "used_memory_dataset") - memory) / idleUsers
		if minute {
			cpu, redis := f.gateway.cpu(), f.redis.CPU()
			time.Sleep(idleFor)
			minutes := float64(idleFor) / float64(time.Minute)
			h.minute = float64(f.gateway.cpu()-cpu) / float64(time.Microsecond) / idleUsers / minutes
			h.redisMinute = micros(f.redis.CPU()-redis, redisIdle/10, idleFor, idleUsers) / minutes
		}
		if n := c.ended.Load(); n > 0 {
			return h, fmt.Errorf("%d of %d idle connections ended", n, idleUsers)
		}
		return h, nil
	}
	one, err := hold(1, true)
	if err != nil {
		return nil, err
	}
	many, err := hold(manyRooms, false)
	if err != nil {
		return nil, err
	}
	return constants{
		"GatewayBytesPerConn":       one.bytes,
		"GatewayBytesPerMembership": (many.bytes - one.bytes) / (manyRooms - 1),
		"GatewayMicrosPerOpen":      one.open,
		"GatewayMicrosPerMinute":    one.minute,
		"RedisBytesPerOnlineUser":   one.redisBytes,
		"RedisMicrosPerUserMinute":  one.redisMinute,
	}, nil
}

// send sends messages at an even rate and says how many.
func (f *fleet) send(rate int, d time.Duration, room func(i int) (id, from string)) (int, error) {
	n := int(float64(rate) * d.Seconds())
	start := time.Now()
	return n, inParallel(n, 16, func(i int) error {
		time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		id, from := room(i)
		return f.post(from, "/v1/rooms/"+id+"/messages", map[string]any{"type": "text", "text": text})
	})
}

// flood sends as fast as it goes, 32 at a time, and says how many were sent.
func (f *fleet) flood(d time.Duration, room func(i int) (id, from string)) (int, error) {
	var sent atomic.Int64
	end := time.Now().Add(d)
	err := inParallel(sendsAtOnce, sendsAtOnce, func(worker int) error {
		for i := worker; time.Now().Before(end); i += sendsAtOnce {
			id, from := room(i)
			if err := f.post(from, "/v1/rooms/"+id+"/messages", map[string]any{"type": "text", "text": text}); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	})
	return int(sent.Load()), err
}

// micros is CPU per unit, in microseconds, with idle CPU taken off.
func micros(used, idlePerSecond, took time.Duration, units int) float64 {
	used -= time.Duration(float64(idlePerSecond) * took.Seconds())
	return float64(used) / float64(time.Microsecond) / float64(units)
}

// deliveries: what a message costs a gateway, by itself and for each reader.
func deliveries(binary string, _ constants) (constants, error) {
	run := func(rooms, size, rate int) (perMessage, frame, link float64, err error) {
		f, err := startFleet(binary, true)
		if err != nil {
			return 0, 0, 0, err
		}
		defer f.stop()
		users := make([]string, rooms*size)
		for i := range users {
			users[i] = user(i)
		}
		if err := inParallel(rooms, 8, func(r int) error { return f.room("r"+strconv.Itoa(r), users[r*size:(r+1)*size]) }); err != nil {
			return 0, 0, 0, err
		}
		time.Sleep(2 * time.Second)
		c, err := f.connect(users)
		if err != nil {
			return 0, 0, 0, err
		}
		defer c.close()
		time.Sleep(time.Second)
		cpu := f.gateway.cpu()
		time.Sleep(5 * time.Second)
		idle := (f.gateway.cpu() - cpu) / 5

		out, net := f.gateway.metric("madang_sent_bytes_total"), redisInfo(f.redis, "stats", "total_net_output_bytes")
		cpu = f.gateway.cpu()
		start := time.Now()
		n, err := f.send(rate, loadFor, func(i int) (string, string) { return "r" + strconv.Itoa(i%rooms), users[i%rooms*size] })
		if err != nil {
			return 0, 0, 0, err
		}
		if err := c.wait(int64(n * size)); err != nil {
			return 0, 0, 0, err
		}
		perMessage = micros(f.gateway.cpu()-cpu, idle, time.Since(start), n)
		frame = (f.gateway.metric("madang_sent_bytes_total") - out) / float64(n*size)
		link = (redisInfo(f.redis, "stats", "total_net_output_bytes") - net) / float64(n)
		return perMessage, frame, link, nil
	}
	big, frame, _, err := run(1, bigRoom, bigRate)
	if err != nil {
		return nil, err
	}
	small, _, link, err := run(smallRooms, smallSize, smallRate)
	if err != nil {
		return nil, err
	}
	// big = message + 1000·delivery, small = message + 10·delivery
	delivery := (big - small) / (bigRoom - smallSize)
	return constants{
		"GatewayMicrosPerDelivery": delivery,
		"GatewayMicrosPerMessage":  max(0, small-smallSize*delivery),
		"FrameBytes":               frame - textChars,
		"LinkBytes":                link - textChars,
	}, nil
}

// sends: what a send costs an API and Redis, and each gateway that follows the room.
func sends(binary string, _ constants) (constants, error) {
	f, err := startFleet(binary, false)
	if err != nil {
		return nil, err
	}
	defer f.stop()
	if err := inParallel(smallRooms, 8, func(r int) error { return f.room("r"+strconv.Itoa(r), []string{user(r), user(r + 1)}) }); err != nil {
		return nil, err
	}
	room := func(i int) (string, string) { return "r" + strconv.Itoa(i%smallRooms), user(i % smallRooms) }
	measure := func() (api, redis float64, err error) {
		time.Sleep(2 * time.Second)
		a, r := f.api.cpu(), f.redis.CPU()
		time.Sleep(5 * time.Second)
		idleAPI, idleRedis := (f.api.cpu()-a)/5, (f.redis.CPU()-r)/5
		a, r = f.api.cpu(), f.redis.CPU()
		start := time.Now()
		n, err := f.flood(loadFor, room)
		took := time.Since(start)
		return micros(f.api.cpu()-a, idleAPI, took, n), micros(f.redis.CPU()-r, idleRedis, took, n), err
	}
	api, alone, err := measure()
	if err != nil {
		return nil, err
	}
	// Followers: bare connections that subscribe to every room's channel.
	keys, err := f.redis.Do("KEYS", "*:log")
	if err != nil {
		return nil, err
	}
	channels := []string{"SUBSCRIBE"}
	for _, k := range keys.([]any) {
		channels = append(channels, strings.TrimSuffix(k.(string), ":log"))
	}
	for range subscribers {
		conn, err := net.Dial("tcp", f.redis.Addr())
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		go io.Copy(io.Discard, conn) // ends when the connection is closed
		cmd := "*" + strconv.Itoa(len(channels)) + "\r\n"
		for _, a := range channels {
			cmd += "$" + strconv.Itoa(len(a)) + "\r\n" + a + "\r\n"
		}
		if _, err := io.WriteString(conn, cmd); err != nil {
			return nil, err
		}
	}
	_, followed, err := measure()
	if err != nil {
		return nil, err
	}
	return constants{
		"APIMicrosPerSend":       api,
		"RedisMicrosPerSend":     alone,
		"RedisMicrosPerFollower": (followed - alone) / subscribers,
	}, nil
}

// canaries: what a partition's heartbeat costs a Cluster's node.
func canaries(binary string, _ constants) (constants, error) {
	f, err := startClusterFleet()
	if err != nil {
		return nil, err
	}
	defer f.stop()
	node := f.cluster.Nodes[0]
	before := node.CPU()
	time.Sleep(20 * time.Second)
	alone := node.CPU() - before
	g, err := f.start(binary, "gateway")
	if err != nil {
		return nil, err
	}
	defer g.stop()
	time.Sleep(5 * time.Second)
	before = node.CPU()
	canaries := g.metric("madang_redis_canary_seconds_count")
	time.Sleep(20 * time.Second)
	used := node.CPU() - before - alone
	n := g.metric("madang_redis_canary_seconds_count") - canaries
	if n < 100 {
		return nil, fmt.Errorf("only %v canaries in 20 s", n)
	}
	lease, err := gets(node)
	if err != nil {
		return nil, err
	}
	return constants{"RedisMicrosPerCanary": float64(used) / float64(time.Microsecond) / n, "RedisMicrosPerLeaseRead": lease}, nil
}

// gets is what a small GET costs Redis when a hundred share a pipeline, as
// leases are read.
func gets(node *testkit.RedisServer) (float64, error) {
	if _, err := node.Do("SET", "gateway:measured", "12345 1000 10.0.0.1:8081"); err != nil {
		return 0, err
	}
	conn, err := net.Dial("tcp", node.Addr())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	const batch, rounds = 100, 5000
	command := strings.Repeat("*2\r\n$3\r\nGET\r\n$16\r\ngateway:measured\r\n", batch)
	answer := make([]byte, batch*len("$24\r\n12345 1000 10.0.0.1:8081\r\n"))
	before := node.CPU()
	for range rounds {
		if _, err := io.WriteString(conn, command); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			return 0, err
		}
	}
	return float64(node.CPU()-before) / float64(time.Microsecond) / (batch * rounds), nil
}

// memory: what is kept in Redis.
func memory(binary string, _ constants) (constants, error) {
	f, err := startFleet(binary, false, "--idempotency-window", "1s")
	if err != nil {
		return nil, err
	}
	defer f.stop()
	// settled waits until keys with a short life are gone.
	settled := func() float64 {
		time.Sleep(4 * time.Second)
		return redisInfo(f.redis, "memory", "used_memory")
	}
	start := settled()
	const alone, full, size = 4000, 200, 100
	if err := inParallel(alone, 8, func(i int) error { return f.room("a"+strconv.Itoa(i), []string{user(i)}) }); err != nil {
		return nil, err
	}
	afterAlone := settled()
	if err := inParallel(full, 8, func(i int) error {
		members := make([]string, size)
		for m := range members {
			members[m] = user(alone + (i*size+m*7)%5000)
		}
		slices.Sort(members)
		return f.room("f"+strconv.Itoa(i), slices.Compact(members))
	}); err != nil {
		return nil, err
	}
	afterFull := settled()
	// alone = room + membership, full = room + 100·membership
	one, hundred := (afterAlone-start)/alone, (afterFull-afterAlone)/full
	membership := (hundred - one) / (size - 1)

	const messages = 20_000
	_, err = f.send(sendRate, messages*time.Second/sendRate, func(i int) (string, string) {
		r := i % full
		return "a" + strconv.Itoa(r), user(r)
	})
	if err != nil {
		return nil, err
	}
	message := (settled() - afterFull) / messages
	f.api.stop()
	if f.api, err = f.start(binary, "api", "--sends-per-second", "0", "--send-burst", "100000"); err != nil {
		return nil, err
	}
	before := settled()
	if _, err = f.send(sendRate, messages*time.Second/sendRate, func(i int) (string, string) {
		r := i % full
		return "a" + strconv.Itoa(r), user(r)
	}); err != nil {
		return nil, err
	}
	withKey := (settled() - before) / messages
	return constants{
		"RedisBytesPerRoom":           one - membership,
		"RedisBytesPerMembership":     membership,
		"RedisBytesPerMessage":        message - textChars,
		"RedisBytesPerIdempotencyKey": withKey - message,
	}, nil
}
