package testkit

import (
	"testing"

	"github.com/madang-chat/madang/internal/embedded"
)

// Mini starts the Redis that `madang dev` embeds.
func Mini(tb testing.TB) *embedded.Redis {
	tb.Helper()
	m := StartMini()
	tb.Cleanup(m.Close)
	return m
}

// StartMini is Mini for those who call Close themselves.
func StartMini() *embedded.Redis {
	m := embedded.New()
	if err := m.Start(); err != nil {
		panic(err) // the loopback has no port left
	}
	return m
}
