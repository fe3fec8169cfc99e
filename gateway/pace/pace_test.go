package pace

import "testing"

// A room whose sockets take 1,000 messages a second is sent 5,000: it is held
// back until it is no longer late, settles near what it takes, and is let go
// once little is sent.
func TestLateRoomIsHeldBackThenLetGo(t *testing.T) {
	const takes, offered, members = 100.0, 500.0, 1 // per period
	var r Room
	backlog, rate := 0.0, 0.0
	worst := 0.0
	step := func(now int64, offered float64) (done bool) {
		in := offered
		if rate > 0 {
			in = min(in, rate*EveryMs/1000)
		}
		backlog += in
		took := min(backlog, takes)
		backlog -= took
		late := backlog / takes * EveryMs
		worst = max(worst, late)
		r.Report(Report{LateMs: int64(late), Events: int(in), Members: members})
		rate, done = r.Advance(now)
		return done
	}
	now := int64(EveryMs)
	for ; now < 10_000; now += EveryMs {
		step(now, offered)
	}
	if worst > 1000 {
		t.Errorf("a message was %v ms late", worst)
	}
	settled := 0.0
	for ; now < 20_000; now += EveryMs {
		step(now, offered)
		settled = max(settled, backlog/takes*EveryMs)
	}
	if settled > 500 {
		t.Errorf("settled %v ms late", settled)
	}
	if rate < 300 || rate > 2500 {
		t.Errorf("rate %v settled far from the 1000 per second that are taken", rate)
	}
	done := false
	for ; now < 40_000 && !done; now += EveryMs {
		done = step(now, 10)
	}
	if !done {
		t.Error("the room was never let go")
	}
}

func TestRoomThatTakesNothingIsKeptAlive(t *testing.T) {
	var r Room
	for now := int64(4 * EveryMs); now < 5000; now += EveryMs {
		r.Report(Report{LateMs: now})
		if rate, _ := r.Advance(now); rate < minRate {
			t.Fatalf("rate %v", rate)
		}
	}
}

func TestPunctualRoomIsNotRemembered(t *testing.T) {
	var r Room
	r.Report(Report{LateMs: 60, Events: 10})
	if rate, done := r.Advance(EveryMs); rate != 0 || !done {
		t.Fatalf("rate %v, done %v", rate, done)
	}
}

// The same of a room with many readers: it has a pace before it is late, and is
// never as late.
func TestARoomOfManyBeginsSlowly(t *testing.T) {
	const takes, offered, members = 200.0, 5000.0, 500 // per period
	var r Room
	backlog, rate, worst, sent := 0.0, 0.0, 0.0, 0.0
	for now := int64(EveryMs); now < 30_000; now += EveryMs {
		in := offered
		if rate > 0 {
			in = min(in, rate*EveryMs/1000)
		}
		if now > 1000 { // the first period is over
			sent += in
		}
		backlog += in
		backlog -= min(backlog, takes)
		late := backlog / takes * EveryMs
		if rate > 0 && now > 5000 {
			worst = max(worst, late)
		}
		r.Report(Report{LateMs: int64(late), Events: int(in), Members: members})
		if rate, _ = r.Advance(now); rate == 0 {
			t.Fatalf("it has no pace at %d ms", now)
		}
	}
	if worst > 500 {
		t.Errorf("%v ms late", worst)
	}
	if mean := sent / 290; mean < takes*0.7 {
		t.Errorf("%v of %v per period were let through", mean, takes)
	}
}
