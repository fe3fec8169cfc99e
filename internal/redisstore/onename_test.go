package redisstore_test

import (
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

// TestAFailoverBehindOneNameIsFollowed: Redis behind one name, as providers sell it. After
// a failover the name leads to the new primary; what is connected to the old one stays so,
// and is answered, but for writes.
func TestAFailoverBehindOneNameIsFollowed(t *testing.T) {
	old, next := testkit.Redis(t), testkit.Redis(t)
	follow := func(replica, primary *testkit.RedisServer) {
		host, port, _ := net.SplitHostPort(primary.Addr())
		replica.Must(t, "REPLICAOF", host, port)
	}
	follow(next, old)
	must(t, old.AwaitReplicas(1))

	var target atomic.Value
	target.Store(old.Addr())
	name, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer name.Close()
	go func() {
		for {
			from, err := name.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target.Load().(string))
			if err != nil {
				from.Close()
				continue
			}
			go func() { io.Copy(to, from); to.Close() }()
			go func() { io.Copy(from, to); from.Close() }()
		}
	}()

	s := open(t, "redis://"+name.Addr().String()+"/0")
	id := room(t, s, "alice")
	e := listen(s)
	e.follow(t, roomCh(id))
	e.wantHealthy(t, 5*time.Second)

	must(t, old.AwaitReplicas(1)) // the room
	next.Must(t, "REPLICAOF", "NO", "ONE")
	target.Store(next.Addr())
	follow(old, next)
	soon(t, failover, "a send", func() bool {
		_, err := trySend(s, id, "k", time.Second)
		return err == nil
	})
	e.wantDelivery(t, id, failover)
	e.wantHealthy(t, failover)
}
