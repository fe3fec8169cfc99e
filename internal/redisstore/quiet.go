package redisstore

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// go-redis writes lines of its own to standard error, in a form of its own. What
// they say reaches us as errors, which are logged where they are handled.
func init() { redis.SetLogger(discard{}) }

type discard struct{}

func (discard) Printf(context.Context, string, ...any) {}
