package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/madang-chat/madang/loadtest/ledger"
)

// recovery is how long everything may take to work again after a fault is over.
const recovery = 45 * time.Second

// outcome is what one step did.
type outcome struct {
	step   step
	window window
	gaps   uint64
}

// run plays one arrangement's share and judges it.
func run(ctx context.Context, opt options) (*result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := newWorld(ctx, opt)
	if w != nil {
		defer w.close()
	}
	if err != nil {
		return nil, err
	}
	var clients, senders sync.WaitGroup
	for _, r := range w.receivers {
		clients.Go(func() { r.run(ctx) })
	}
	if !until(ctx, time.Minute, w.allResumed) {
		return nil, fmt.Errorf("the receivers do not connect")
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	for i := range opt.senders {
		rng := rand.New(rand.NewPCG(opt.seed, 100+uint64(i)))
		senders.Go(func() { w.send(sending, rng, time.Second*time.Duration(opt.senders)/time.Duration(opt.rate)) })
	}

	res := &result{opt: opt, began: time.Now()}
	w.calm(ctx, res)
	plan := newPlan(opt.seed, opt.kinds)
	for began := time.Now(); time.Since(began) < opt.during && ctx.Err() == nil && len(opt.kinds) > 0 && !w.violated(); {
		s := plan.next()
		res.outcomes = append(res.outcomes, w.strike(ctx, s))
		sleep(ctx, time.Duration(300+plan.rng.IntN(700))*time.Millisecond)
	}
	stop()
	deadline := time.AfterFunc(recovery, w.giveUp)
	senders.Wait()
	deadline.Stop()
	w.judge(ctx, res)
	if opt.flushAll {
		w.flushAll(ctx, res)
	}
	cancel()
	clients.Wait()
	for _, n := range w.nodes() {
		for _, line := range n.panics() {
			w.violate("%s", line)
		}
	}
	res.violations = append(res.violations, w.violations...)
	res.took = time.Since(res.began)
	return res, nil
}

func (w *world) violated() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.violations) > 0
}

// calm measures without a fault, so that the other figures have something to be
// compared with.
func (w *world) calm(ctx context.Context, res *result) {
	sleep(ctx, time.Second)
	w.open()
	sleep(ctx, 2*time.Second)
	res.calm, _ = w.shut()
}

// strike does a step and waits until everything works again.
func (w *world) strike(ctx context.Context, s step) outcome {
	w.opt.say("%s", s.name())
	w.open()
	var faults, whispers sync.WaitGroup
	striking, over := context.WithCancel(ctx)
	whispers.Go(func() { w.whisper(striking, rand.New(rand.NewPCG(s.seed, 3))) })
	for i, f := range s.faults {
		faults.Go(func() {
			detail, err := f.run(ctx, w, rand.New(rand.NewPCG(s.seed, uint64(i))))
			if err != nil && ctx.Err() == nil {
				w.violate("%s (%s): %v", f.name, detail, err)
			} else if detail != "" {
				w.opt.say("    %s", detail)
			}
		})
	}
	faults.Wait()
	over()
	since := time.Now()
	whispers.Wait()
	recovered := until(ctx, recovery, func() bool { return w.allReady() && w.allHear(since) && w.redis.inStep() })
	if !recovered && ctx.Err() == nil {
		w.violate("%s: not recovered %v after it was over: %s", s.name(), recovery, w.trouble(since))
	}
	o := outcome{step: s}
	o.window, o.gaps = w.shut()
	w.hold(o)
	return o
}

// heldBack is the answer to sends to a room whose readers have fallen behind. It
// is flow control, and no failure.
const heldBack = "429"

// hold holds an outcome against what was expected.
func (w *world) hold(o outcome) {
	limit, clean := time.Duration(0), len(o.step.faults) == 1
	for _, f := range o.step.faults {
		limit = max(limit, f.outage)
		clean = clean && f.clean
	}
	if len(o.step.faults) > 1 {
		limit *= 2 // a client may go from one into the next
	}
	w.opt.say("    longest silence %v, latest message %v, slowest answer %v, %v, %d gaps", round(o.window.silence), round(o.window.late), round(o.window.slowest), o.window.failed, o.gaps)
	if o.window.silence > limit || o.window.late > limit {
		w.violate("%s: silence of %v, a message %v late; the bound is %v", o.step.name(), round(o.window.silence), round(o.window.late), limit)
	}
	held := o.window.failed[heldBack]
	if clean && len(o.window.failed) > min(held, 1) {
		w.violate("%s: sends failed: %v", o.step.name(), o.window.failed)
	}
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// open begins a window.
func (w *world) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.window = window{from: time.Now(), failed: map[string]int{}, gaps: w.book.Counts.Gaps}
}

// shut ends it.
func (w *world) shut() (window, uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.receivers {
		if r.listens {
			w.window.silence = max(w.window.silence, time.Since(later(r.heard, w.window.from)))
		}
	}
	last := w.window
	w.window.failed = map[string]int{}
	return last, w.book.Counts.Gaps - last.gaps
}

func (w *world) allResumed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.receivers {
		if !r.resumed {
			return false
		}
	}
	return true
}

// allHear says whether every receiver is caught up.
func (w *world) allHear(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.receivers {
		if r.deaf(since) != "" {
			return false
		}
	}
	return true
}

// deaf says what a receiver does not hear, "" when it hears everything: something
// since a time, and all there is of the quiet rooms. mu is held.
func (r *receiver) deaf(since time.Time) string {
	switch {
	case r.conn == nil:
		return "not connected"
	case !r.resumed:
		return "not resumed, on " + r.gateway.name
	case len(r.paging) > 0:
		return fmt.Sprintf("paging %d rooms", len(r.paging))
	case r.listens && !r.heard.After(since):
		return "has heard nothing, on " + r.gateway.name
	}
	for i := r.w.busy; i < len(r.w.rooms); i++ {
		if pos, member := r.positions[r.w.rooms[i]]; member && pos < r.w.last[i] && !r.w.mayLose() {
			return fmt.Sprintf("has not heard the last of %s, on %s", r.w.rooms[i], r.gateway.name)
		}
	}
	return ""
}

// trouble says what does not work.
func (w *world) trouble(since time.Time) (text string) {
	for _, n := range w.nodes() {
		if !n.isReady() {
			text += n.name + " is not ready; "
		}
	}
	w.mu.Lock()
	deaf := 0
	for _, r := range w.receivers {
		if why := r.deaf(since); why != "" {
			if deaf++; deaf <= 3 {
				text += r.name + ": " + why + "; "
			}
		}
	}
	w.mu.Unlock()
	if deaf > 3 {
		text += fmt.Sprintf("and %d more receivers; ", deaf-3)
	}
	if !w.redis.inStep() {
		text += "Redis is not in step"
	}
	return text
}

// judge waits until everything has been acknowledged and delivered, and compares.
func (w *world) judge(ctx context.Context, res *result) {
	names := ledger.Names{
		Room: func(room uint32) string { return w.rooms[room] },
		Reader: func(id ledger.ReaderID) string {
			for _, r := range w.receivers {
				for _, reader := range r.readers {
					if reader == id {
						return r.name
					}
				}
			}
			return fmt.Sprint(id)
		},
	}
	gone := w.audit(ctx, res)
	settled := until(ctx, recovery, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.unsettled > 0 {
			return false
		}
		for _, r := range w.receivers {
			if len(r.paging) > 0 || !r.resumed {
				return false
			}
		}
		return w.book.Judge(w.kept(gone), names).Lost == 0
	})
	w.mu.Lock()
	res.verdict = w.book.Judge(w.kept(gone), names)
	res.counts = w.book.Counts
	res.acked, res.sent = len(w.acks), int(w.sends)
	for _, r := range w.receivers {
		res.connects += r.connects
	}
	unsettled := w.unsettled
	w.mu.Unlock()
	if unsettled > 0 {
		w.violate("%d sends were never acknowledged", unsettled)
	}
	if !settled {
		w.violate("not everything has arrived %v after the last fault: %s", recovery, w.trouble(time.Time{}))
	}
	if res.verdict.Lost > 0 || res.verdict.Wrong > 0 || res.counts.Reordered > 0 {
		w.violate("%d lost, %d wrong, %d reordered", res.verdict.Lost, res.verdict.Wrong, res.counts.Reordered)
		for _, v := range res.verdict.Violations {
			w.violate("%s", v)
		}
	}
}

// kept are the acknowledgements of messages that Redis has not lost; mu is held.
func (w *world) kept(gone map[ledger.Send]bool) []ledger.Ack {
	if len(gone) == 0 {
		return w.acks
	}
	return slices.DeleteFunc(slices.Clone(w.acks), func(a ledger.Ack) bool { return gone[a.Send] })
}

// mayLose says whether Redis may lose what it acknowledged: a primary alone did,
// and there are replicas that may take its place.
func (w *world) mayLose() bool { return w.opt.ack == 0 && w.redis.kind != standalone }

// untold is a member of the room who was never told of a gap in it.
func (w *world) untold(room string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.receivers {
		if _, member := r.readers[room]; member && r.gaps[room] == 0 {
			return r.name
		}
	}
	return ""
}

// audit reads every room's whole history and holds it against what was
// acknowledged: there once, under the ID that was told, in an unbroken chain. It
// returns what is not there, which only a Redis that may lose it is forgiven, and
// only when everybody was told.
func (w *world) audit(ctx context.Context, res *result) (gone map[ledger.Send]bool) {
	gone = map[ledger.Send]bool{}
	byRoom := make([]map[ledger.Send]ledger.Pos, len(w.rooms))
	for i := range byRoom {
		byRoom[i] = map[ledger.Send]ledger.Pos{}
	}
	for _, a := range w.acks {
		byRoom[a.Room][a.Send] = a.Pos
	}
	for i, room := range w.rooms {
		as := w.user(w.members[i][0])
		var last stored
		seen := map[ledger.Send]ledger.Pos{}
		for more := true; more; {
			var page []stored
			var err error
			if !until(ctx, recovery, func() bool {
				page, more, err = as.history(ctx, room, "after="+last.pos.ID().String())
				return err == nil
			}) {
				w.violate("%s: its history can't be read: %v", room, err)
				return gone
			}
			for _, m := range page {
				if m.prev != last.pos || m.n != last.n+1 || m.pos <= last.pos {
					w.violate("%s: the log has %s (number %d, after %s) behind %s (number %d)", room, m.pos.ID(), m.n, m.prev.ID(), last.pos.ID(), last.n)
				}
				if first, twice := seen[m.send]; twice {
					w.violate("%s: send %d is in the log as %s and as %s", room, m.send, first.ID(), m.pos.ID())
				}
				seen[m.send], last = m.pos, m
				if told, acked := byRoom[i][m.send]; acked && told != m.pos {
					res.moved++
				} else if !acked {
					res.unacked++
				}
			}
		}
		for send, pos := range byRoom[i] {
			if _, there := seen[send]; !there {
				res.vanished++
				gone[send] = true
				if !w.mayLose() {
					w.violate("%s: send %d was acknowledged as %s and is not in the log", room, send, pos.ID())
				} else if deaf := w.untold(room); deaf != "" {
					w.violate("%s: send %d was acknowledged as %s and is not in the log, and %s was never told of a gap", room, send, pos.ID(), deaf)
				}
			}
		}
		res.stored += len(seen)
	}
	if res.moved > 0 && !w.mayLose() {
		w.violate("%d messages were acknowledged under one ID and are in the log under another", res.moved)
	}
	return gone
}

// flushAll empties Redis while links stay up: everyone must be told, sockets stay,
// sends to rooms that are gone get 404 (FAULTS).
func (w *world) flushAll(ctx context.Context, res *result) {
	w.opt.say("FLUSHALL")
	w.mu.Lock()
	before := w.book.Counts.Gaps
	connects := 0
	owed := uint64(0)
	for _, r := range w.receivers {
		connects += r.connects
		owed += uint64(len(r.readers))
	}
	w.mu.Unlock()
	began := time.Now()
	if _, err := w.redis.nodes[0].Do("FLUSHALL"); err != nil {
		w.violate("FLUSHALL: %v", err)
		return
	}
	untold := func() (who []string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, r := range w.receivers {
			for room, pos := range r.positions {
				if pos != 0 {
					who = append(who, fmt.Sprintf("%s of %s on %s", r.name, room, r.gateway.name))
				}
			}
		}
		return who
	}
	if !until(ctx, 15*time.Second, func() bool { return len(untold()) == 0 }) {
		who := untold()
		w.violate("FLUSHALL: %d of %d receivers' rooms were not told a gap to 0-0: %v", len(who), owed, who)
	}
	res.flushTold = time.Since(began)
	w.mu.Lock()
	res.flushGaps = w.book.Counts.Gaps - before
	for _, r := range w.receivers {
		connects -= r.connects
	}
	w.mu.Unlock()
	if connects != 0 {
		w.violate("FLUSHALL: %d sockets were closed", -connects)
	}
	status, answer, err := w.request(ctx, w.apis[0], w.receivers[0], "POST", "/v1/rooms/room-0/messages", `{"type":"text","text":"gone?"}`, "after-flush")
	if err != nil || status != 404 {
		w.violate("FLUSHALL: a send to a room that is gone: %d %s %v, want 404", status, answer, err)
	}
}
