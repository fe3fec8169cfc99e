package main

import (
	"io"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/plan"
)

// planCommand is `madang plan`.
type planCommand struct {
	config.Plan
}

// Run computes and prints. A first plan tells whether one Redis is enough; when
// it is not, it is made again for a Cluster.
func (c *planCommand) Run(stdout io.Writer) error {
	load := plan.Load{
		Connections: c.Connections, Users: c.Users, Rooms: c.Rooms, Members: c.Members,
		Rate: c.Rate, MeanRate: c.MeanRate, TextBytes: float64(c.Text),
		Keep: c.Keep, KeepPerRoom: c.LogMaxLen, Window: c.Window,
		LargestMembers: c.LargestRoom, LargestRate: c.LargestRoomRate,
	}
	shape := plan.Shape{
		Cores: c.Cores, MemoryBytes: float64(c.Memory), NetworkBits: c.Network * 1e9, RedisBytes: float64(c.RedisMemory),
		Use: c.Use / 100, Replicas: c.Replicas, Partitions: float64(c.Partitions), SocketsEach: c.MaxConns, HotTailBytes: float64(c.HotTail),
	}
	p, err := plan.Make(load, shape, plan.MeasuredCosts())
	if err == nil && p.Redis.Machines > 1 {
		shape.Cluster = true
		p, err = plan.Make(load, shape, plan.MeasuredCosts())
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return p.WriteJSON(stdout)
	}
	return p.WriteText(stdout)
}
