package api_test

import (
	"log/slog"
	"testing"

	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// onEveryStore plays a scenario on the Store of these tests, so that it says what
// HTTP alone does, and on Redis, embedded and real, so that it is true.
func onEveryStore(t *testing.T, scenario func(t *testing.T, w *world)) {
	t.Run("memory", func(t *testing.T) { scenario(t, newWorld(t, newMemory(), nil)) })
	onRealStores(t, scenario)
}

func onRealStores(t *testing.T, scenario func(t *testing.T, w *world)) {
	t.Run("miniredis", func(t *testing.T) { scenario(t, newWorld(t, redisStore(t, testkit.Mini(t).URL()), nil)) })
	t.Run("redis", func(t *testing.T) { scenario(t, newWorld(t, redisStore(t, testkit.Redis(t).URL()), nil)) })
}

func redisStore(t *testing.T, url string) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(redisstore.Options{URL: url, Partitions: 4, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
