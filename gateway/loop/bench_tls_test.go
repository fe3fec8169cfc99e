package loop_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/loop"
)

// What TLS costs: a handshake's processor time, an idle connection's memory.

// tlsClients opens so many connections with a version of TLS, says so, and holds them
// until its standard input ends.
func tlsClients(addr string, count int, version string) error {
	v, err := strconv.ParseUint(version, 10, 16)
	if err != nil {
		return err
	}
	// Who the gateway is does not matter here, only what it costs to say it.
	conf := &tls.Config{InsecureSkipVerify: true, MinVersion: uint16(v), MaxVersion: uint16(v)}
	held := make([]*tls.Conn, count)
	errs := make(chan error, 4)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := w; i < count; i += 4 {
				conn, err := net.Dial("tcp", addr)
				if err == nil {
					held[i] = tls.Client(conn, conf)
					_, err = io.WriteString(held[i], goodHead+"Authorization: Bearer user"+fmt.Sprint(i)+"\r\n\r\n")
				}
				var line string
				if err == nil {
					line, err = bufio.NewReaderSize(held[i], 512).ReadString('\n')
				}
				if err == nil && !strings.HasPrefix(line, "HTTP/1.1 101") {
					err = fmt.Errorf("upgrade: %s", line)
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return err
	default:
	}
	fmt.Println("open")
	_, err = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(held)
	return err
}

// BenchmarkIdleTLS: user memory per idle connection with TLS, a member of one
// room, and the processor time it took to open it.
func BenchmarkIdleTLS(b *testing.B) {
	for _, name := range []string{"TLS 1.3", "TLS 1.2"} {
		b.Run(name, func(b *testing.B) { idleTLS(b, tlsVersions[name]) })
	}
}

func idleTLS(b *testing.B, version uint16) {
	const conns = 4000
	cert := identity(b, "gateway", nil)
	for b.Loop() {
		debug.FreeOSMemory()
		base, cpu := rss(), cpuTime()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, done := openAs(b, conns, fmt.Sprint("tls ", version), func(o *loop.Options) {
			o.Verifier = constant{}
			o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		})
		b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/conns, "cpu-us/upgrade")
		time.Sleep(100 * time.Millisecond)
		b.ReportMetric(float64(rss()-base)/conns, "rss-B/conn")
		debug.FreeOSMemory()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(rss()-base)/conns, "rss-after-GC-B/conn")
		b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/conns, "live-B/conn")
		b.ReportMetric(float64(int64(after.StackInuse)-int64(before.StackInuse))/conns, "stack-B/conn")
		b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
		b.ReportMetric(0, "ns/op")
		done()
	}
}
