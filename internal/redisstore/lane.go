package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/madang-chat/madang/internal/chat"
)

// call is one command on its way. Whoever made it reads the answer after its
// join said so, and not before.
type call struct {
	part int
	args []any // whole: evalsha, SHA and all
	// script is what args run, nil for a plain command.
	script *script
	// ack: the answer waits for replicas where so configured.
	ack bool
	// once: not to be repeated when it may have run already.
	once bool

	deadline time.Time
	join     *join
	// then hears the answer of a call that nobody waits for; may be nil, must not block.
	then func(reply any, err error)

	// Written by whoever finishes the call; to be read through result.
	state atomic.Uint32
	reply any
	err   error
	short bool // ran, but too few replicas have it
	// When its pipeline was under way; zero for a call that was in none.
	wentOut, cameBack time.Time
}

// States of a call.
const (
	callPending uint32 = iota
	callDone
	callAbandoned // nobody waits any more: whoever finishes it keeps the answer
)

// join waits for a number of calls.
type join struct {
	left atomic.Int32
	done chan struct{} // 1 deep: all are answered
}

func newJoin() *join { return &join{done: make(chan struct{}, 1)} }

func (c *call) finish(reply any, err error) {
	c.reply, c.err = reply, err
	c.state.CompareAndSwap(callPending, callDone)
	if c.then != nil {
		c.then(reply, err)
	}
	if j := c.join; j != nil && j.left.Add(-1) == 0 {
		j.done <- struct{}{}
	}
}

// result is the answer as the caller gets it, errDeadline when there is none
// yet: from then on the call is abandoned.
func (c *call) result() (any, error) {
	switch {
	case c.state.Load() != callDone && c.state.Swap(callAbandoned) != callDone:
		return nil, errDeadline
	case c.err != nil:
		return nil, forCaller(c.err)
	}
	if err := refusal(c.reply); err != nil {
		return c.reply, err // nothing was stored that replicas could lack
	}
	if c.short {
		return c.reply, chat.ErrNotReplicated
	}
	return c.reply, nil
}

// laneKind tells what a lane is for. Reads have a lane of their own so that a
// gateway's audit does not stand before sends and canaries; presence, markers and
// live events have one so that a storm of them stands before neither.
type laneKind uint8

const (
	writes laneKind = iota
	reads
	ephemeral

	laneKinds // how many there are
)

func (k laneKind) String() string { return [...]string{"writes", "reads", "ephemeral"}[k] }

// maxBatch is how many commands a pipeline carries. More saves no system calls
// and delays the first answer behind the last, of which a read waits for all.
// Ephemeral scripts handle up to 100 users each: more of them would hold Redis up
// for everybody.
func (k laneKind) maxBatch() int { return [...]int{256, 500, 16}[k] }

// lane carries calls to one node, in pipelines of what is waiting: nothing waits
// for company, and under load batches grow by themselves while pipelines are
// under way. (At a thousand sends a second a pause of 1 ms behind each pipeline put
// 1.5 sends into one, a pause of 2 ms 2.5: neither Redis nor the API took measurably
// less CPU for a send on an idle machine, as the timers cost what the round trips
// had.) It has no goroutine while it has nothing to do.
type lane struct {
	s      *Store
	client *redis.Client
	kind   laneKind

	// failingSince is when the node stopped answering, in nanoseconds since the Store
	// was opened (a clock that may be set is none for it), 0 while it answers: callers
	// give up sooner on a node that is known to be away.
	failingSince atomic.Int64

	mu      sync.Mutex
	queue   []*call
	workers int
	coming  int // of the workers, those that have taken nothing yet
}

// submit queues calls; what a full queue can't take is refused at once. Calls
// that come together go into as few pipelines as hold them.
func (l *lane) submit(calls ...*call) {
	for range l.queueUp(calls) {
		go l.work(false)
	}
}

// carry is submit for a caller that waits for the answers anyway: it runs the
// pipeline itself when no other is about to, which spares handing the call to
// another goroutine, and the answer back. It may return before the answers are there.
func (l *lane) carry(calls ...*call) {
	start := l.queueUp(calls)
	if start == 0 {
		return
	}
	for range start - 1 {
		go l.work(false)
	}
	l.work(true)
}

// queueUp is submit; it returns how many workers the caller has to start.
func (l *lane) queueUp(calls []*call) (start int) {
	l.mu.Lock()
	room := max(0, l.s.opt.MaxQueued-len(l.queue))
	taken := calls[:min(room, len(calls))]
	l.queue = append(l.queue, taken...)
	most := l.kind.maxBatch()
	for l.workers < lanePipelines && l.coming*most < len(l.queue) && l.s.begin() {
		l.workers++
		l.coming++
		start++
	}
	var lost []*call
	if l.workers == 0 { // nobody will come: the Store is closed
		lost, l.queue = l.queue, nil
	}
	l.mu.Unlock()
	for _, c := range lost {
		c.finish(nil, errClosed)
	}
	for _, c := range calls[len(taken):] {
		l.s.observeFailure("overflow")
		c.finish(nil, errOverflow)
	}
	return start
}

// work sends pipelines until nothing is queued. Whoever has more to do sends one and
// leaves the rest to a goroutine.
func (l *lane) work(once bool) {
	most := l.kind.maxBatch()
	var batch []*call
	for first := true; ; first = false {
		l.mu.Lock()
		if first {
			l.coming--
		}
		n := min(len(l.queue), most)
		if n == 0 {
			l.workers--
			if l.workers == 0 && cap(l.queue) > 4*most {
				l.queue = nil // a burst's memory
			}
			l.mu.Unlock()
			l.s.end()
			return
		}
		if once && !first {
			l.coming++
			l.mu.Unlock()
			go l.work(false) // in this one's place
			return
		}
		batch = append(batch[:0], l.queue[:n]...)
		rest := copy(l.queue, l.queue[n:])
		clear(l.queue[rest:])
		l.queue = l.queue[:rest]
		l.mu.Unlock()

		l.send(batch)
		clear(batch)
	}
}

// send runs one pipeline, and a second one for scripts that the node had to be
// given first.
func (l *lane) send(batch []*call) {
	now := time.Now()
	live := batch[:0]
	for _, c := range batch {
		if now.After(c.deadline) {
			c.finish(nil, errDeadline)
			continue
		}
		live = append(live, c)
	}
	if unknown := l.pipeline(live, true); len(unknown) > 0 {
		if err := l.load(unknown); err != nil {
			for _, c := range unknown {
				c.finish(nil, err)
			}
			return
		}
		l.pipeline(unknown, false)
	}
}

// pipeline sends calls and answers them, but for those whose script the node
// does not know: these it returns when asked to.
func (l *lane) pipeline(calls []*call, mayLoad bool) (unknown []*call) {
	if len(calls) == 0 {
		return nil
	}
	ctx := until{context.Background(), latest(calls)}
	pipe := l.client.Pipeline()
	cmds := make([]redis.Cmd, len(calls))
	acked := -1 // the partition of a call that waits for replicas
	for i, c := range calls {
		cmds[i] = *redis.NewCmd(ctx, c.args...)
		_ = pipe.Process(ctx, &cmds[i])
		if c.ack {
			acked = c.part
		}
	}
	var end ack
	waits := acked >= 0 && l.s.opt.MinReplicasAck > 0
	if waits {
		end = l.ack(ctx, pipe, acked)
	}
	start := time.Now()
	_, err := pipe.Exec(ctx)
	took := time.Since(start)
	if unanswered(&cmds[0]) {
		err = fmt.Errorf("%w (%w)", errNotLetIn, err)
	}
	l.observe(len(calls), took, err)

	if l.kind == reads && l.s.nodes.cluster != nil {
		l.followMoves(ctx, calls, cmds)
	}
	short := waits && !end.enough(l.s.opt.MinReplicasAck)
	if short && classify(end.mark.Err()) == moved {
		short = !l.ackElsewhere(ctx, calls, cmds, acked)
	}
	for i, c := range calls {
		c.wentOut, c.cameBack = start, start.Add(took)
		reply, cmdErr := cmds[i].Result()
		switch {
		case unanswered(&cmds[i]):
			cmdErr = err
		case errors.Is(cmdErr, redis.Nil):
			cmdErr = nil
		}
		if cmdErr != nil {
			what := classify(cmdErr)
			if what == noScript && mayLoad {
				unknown = append(unknown, c)
				continue
			}
			l.s.observeFailure(what.String())
		}
		c.short = short && c.ack
		c.finish(reply, cmdErr)
	}
	return unknown
}

// followMoves asks again for what was not found in a slot that is being moved: if it is
// anywhere, it is with the slot's next owner already, where the cluster's client goes when the
// present one says so (ASK). Writes wait instead: nearly all are scripts on several keys, one
// of which is new, and are refused by both owners until the slot has moved; and WAIT is of one
// connection.
func (l *lane) followMoves(ctx context.Context, calls []*call, cmds []redis.Cmd) {
	var pipe redis.Pipeliner
	for i, c := range calls {
		if !isAsk(cmds[i].Err()) {
			continue
		}
		if pipe == nil {
			pipe = l.s.nodes.cluster.Pipeline()
		}
		args := slices.Clone(c.args)
		if c.script != nil { // which the next owner may not know
			args[0], args[1] = "eval", c.script.text
		}
		cmds[i] = *redis.NewCmd(ctx, args...)
		_ = pipe.Process(ctx, &cmds[i])
	}
	if pipe != nil {
		_, _ = pipe.Exec(ctx)
	}
}

// unanswered says that a command was never sent, though it has no error: go-redis gives
// it none when what failed is an error of Redis itself, as it is when a connection is
// not let in. An answer of nil is redis.Nil.
func unanswered(cmd *redis.Cmd) bool { return cmd.Val() == nil && cmd.Err() == nil }

// ack is the end of a pipeline whose answers wait for replicas.
type ack struct {
	mark *redis.StatusCmd
	wait *redis.Cmd
}

// ack waits on the scripts' own connection: on another one WAIT says nothing about
// them. One covers the batch. Since Redis 7.2, and in Valkey, it waits for what the
// connection itself wrote last, which for a replay of what another one wrote may be
// long ago: so something is written that changes nothing.
func (l *lane) ack(ctx context.Context, pipe redis.Pipeliner, part int) ack {
	return ack{
		mark: pipe.Set(ctx, l.s.keys.acked(part), "", ackedTTL),
		wait: pipe.Do(ctx, "wait", l.s.opt.MinReplicasAck, l.s.opt.AckTimeout.Milliseconds()),
	}
}

func (a ack) enough(replicas int) bool {
	n, err := a.wait.Int()
	return err == nil && n >= replicas && a.mark.Err() == nil
}

// ackElsewhere is a second ack for a pipeline whose first was refused because its
// partition is on the move: the others' calls have run, and are nobody else's loss. A
// write after theirs is replicated after theirs, on whatever connection.
func (l *lane) ackElsewhere(ctx context.Context, calls []*call, cmds []redis.Cmd, not int) bool {
	for i, c := range calls {
		if c.ack && c.part != not && cmds[i].Err() == nil {
			pipe := l.client.Pipeline()
			end := l.ack(ctx, pipe, c.part)
			_, _ = pipe.Exec(ctx)
			return end.enough(l.s.opt.MinReplicasAck)
		}
	}
	return false
}

// ackedTTL cleans up what is only written to be replicated.
const ackedTTL = time.Minute

// until is a context that ends at a time and does not tell: a connection's deadline is
// set from it.
type until struct {
	context.Context
	at time.Time
}

func (u until) Deadline() (time.Time, bool) { return u.at, true }

// latest is when the last of the calls is given up.
func latest(calls []*call) (at time.Time) {
	for _, c := range calls {
		if c.deadline.After(at) {
			at = c.deadline
		}
	}
	return at
}

// load gives the node the scripts it does not know: it was restarted, flushed or
// promoted.
func (l *lane) load(calls []*call) error {
	ctx, cancel := context.WithTimeout(context.Background(), l.s.opt.CommandTimeout)
	defer cancel()
	pipe := l.client.Pipeline()
	loaded := map[*script]bool{}
	for _, c := range calls {
		if !loaded[c.script] {
			loaded[c.script] = true
			pipe.ScriptLoad(ctx, c.script.text)
		}
	}
	_, err := pipe.Exec(ctx)
	return err
}

func (l *lane) observe(commands int, took time.Duration, err error) {
	if f := l.s.opt.Observer.Pipeline; f != nil {
		f(l.kind.String(), commands, took)
	}
	if what := classify(err); err != nil && (what == unreachable || what == broken) {
		l.failingSince.CompareAndSwap(0, int64(time.Since(l.s.opened)))
	} else {
		l.failingSince.Store(0)
	}
}

// failingFor is how long the node has not answered.
func (l *lane) failingFor() time.Duration {
	since := l.failingSince.Load()
	if since == 0 {
		return 0
	}
	return time.Since(l.s.opened) - time.Duration(since)
}
