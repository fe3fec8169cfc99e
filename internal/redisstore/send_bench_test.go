package redisstore_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// BenchmarkSend sends from many goroutines into many rooms of a standalone
// server: what the batching makes of it is the mean pipeline.
func BenchmarkSend(b *testing.B) {
	for _, senders := range []int{1, 32, 256} {
		b.Run(fmt.Sprint(senders), func(b *testing.B) {
			var pipelines, commands atomic.Int64
			r := testkit.Redis(b)
			s := open(b, r.URL(), func(o *redisstore.Options) {
				o.Observer.Pipeline = func(_ string, n int, _ time.Duration) {
					pipelines.Add(1)
					commands.Add(int64(n))
				}
			})
			rooms := make([]string, 100)
			for i := range rooms {
				rooms[i] = room(b, s, "alice")
			}
			text := tail(strings.Repeat("x", 200))
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism((senders + 1) / 2)
			b.ResetTimer()
			cpu, redisCPU := cpuTime(), r.CPU()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := n.Add(1)
					_, err := s.Send(background, chat.Send{
						Room: rooms[i%100], By: as("alice"), Key: fmt.Sprintf("%s-%d", b.Name(), time.Now().UnixNano()+i),
						Hash: "0123456789abcdef0123456789abcdef", Tail: text,
					})
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "client-cpu-ns/op")
			b.ReportMetric(float64(r.CPU()-redisCPU)/float64(b.N), "redis-cpu-ns/op")
			b.ReportMetric(float64(commands.Load())/float64(pipelines.Load()), "sends/pipeline")
		})
	}
}

// BenchmarkLimit is the least that a send can cost Redis on this machine: a script of
// an XADD and a PUBLISH alone, with nobody subscribed, in pipelines of 32.
func BenchmarkLimit(b *testing.B) {
	const pipelined = 32
	r := testkit.Redis(b)
	client := redis.NewClient(&redis.Options{Addr: r.Addr()})
	defer client.Close()
	script := redis.NewScript(`local id = redis.call('XADD', KEYS[1], '*', 't', ARGV[1]); redis.call('PUBLISH', KEYS[1], ARGV[1]); return id`)
	must(b, script.Load(background, client).Err())
	text := tail(strings.Repeat("x", 200))
	pipe := client.Pipeline()
	b.ResetTimer()
	before := r.CPU()
	for n := 0; n < b.N; n += pipelined {
		for i := range pipelined {
			script.EvalSha(background, pipe, []string{fmt.Sprintf("room:%d", (n+i)%100)}, text)
		}
		_, err := pipe.Exec(background)
		must(b, err)
	}
	b.ReportMetric(float64(r.CPU()-before)/float64(b.N), "redis-cpu-ns/op")
}

// cpuTime is what this process has used, the server not counted.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
