package doctor

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/redisstore"
)

// Examine looks at the host whose root is given and at the Redis of the
// settings, and judges both.
func Examine(ctx context.Context, root fs.FS, c config.Doctor) (Report, error) {
	roles, err := ParseRoles(c.Roles)
	if err != nil {
		return Report{}, err
	}
	h := ReadHost(root)
	r := Report{Host: JudgeHost(h, Want{Roles: roles, Connections: c.Connections, Processes: c.Gateways})}
	if roles.has(Gateway) {
		r.Capacity = Capacity(h, c.Gateways)
	}
	url, err := c.Where()
	if err != nil || url == "" {
		return r, err
	}
	in, err := redisstore.Inspect(ctx, redisstore.Options{URL: url, TLS: c.TLS, CommandTimeout: c.RedisTimeout})
	if err != nil {
		r.Redis = []Finding{{Level: Error, Check: "redis", Found: err.Error(), Why: "without Redis no process is ready", Fix: "# is the address right, and is it reachable from here?"}}
		return r, nil
	}
	r.Redis = JudgeRedis(in, WantRedis{Partitions: c.Partitions, MinReplicasAck: c.MinReplicasAck, Gateways: c.Fleet})
	if len(r.Redis) == 0 {
		return r, fmt.Errorf("BUG: nothing was found out about %s Redis", in.Kind)
	}
	return r, nil
}
