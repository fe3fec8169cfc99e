package testkit

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
)

// FreePort finds a port of the loopback below the range that the kernel gives to
// outgoing connections, so that a server that is down finds it free again. One after the
// other from a place of this process's own: what is drawn each time is drawn twice now
// and then, before the first has begun to listen.
func FreePort() int {
	const first, ports = 12000, 20000
	for {
		port := first + int(portsGiven.Add(1)+portsFrom)%ports
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return port
		}
	}
}

var (
	portsFrom  = rand.Uint32()
	portsGiven atomic.Uint32
)
