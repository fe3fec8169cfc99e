package redisstore_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/madang-chat/madang/internal/testkit"
)

// BenchmarkRooms lists a page of a user's rooms. What holds Redis up is the read of the whole
// index, one command; gateways do it too, when the user connects.
func BenchmarkRooms(b *testing.B) {
	for _, rooms := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(rooms), func(b *testing.B) {
			r := testkit.Redis(b)
			s := open(b, r.URL())
			id := func(n int) string { return fmt.Sprintf("01M8KM9Z455SJ2204MN%07d", n) }
			for n := range min(50, rooms) { // those of the page
				_, err := s.CreateRoom(background, as("alice"), id(n), "name", nil)
				must(b, err)
			}
			index := keysLike(b, r, "*:user:alice:rooms")
			for first := 0; first < rooms; first += 50 { // with markers, as who looks at rooms has them
				fields := []string{"HSET", index}
				for n := range min(50, rooms-first) {
					n := first + n
					fields = append(fields, "r:"+id(n), "1795955616691 1795955616691-0", "m:"+id(n), "1795955616691-0 100", "d:"+id(n), "1795955616691-0 100")
				}
				_, err := r.Do(fields...)
				must(b, err)
			}
			r.Must(b, "CONFIG", "RESETSTAT")
			b.ResetTimer()
			before := r.CPU()
			for b.Loop() {
				page, _, _, err := s.Rooms(background, "alice", "", 50)
				if err != nil || len(page) != min(50, rooms) {
					b.Fatal(len(page), err)
				}
			}
			b.ReportMetric(float64(r.CPU()-before)/float64(b.N), "redis-cpu-ns/op")
			var us float64
			if _, after, ok := strings.Cut(r.Info("commandstats")["cmdstat_hgetall"], "usec_per_call="); ok {
				_, err := fmt.Sscanf(after, "%f", &us)
				must(b, err)
			}
			b.ReportMetric(us, "hgetall-us")
		})
	}
}
