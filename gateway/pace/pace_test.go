package pace

import "testing"

// A room whose sockets take 1,000 messages a second is sent 5,000: it is held
// back until it is no longer late, settles near what it takes, and is let go
// once little is sent.
func TestLateRoomIsHeldBackThenLetGo(t *testing.T) {
	const takes, offered = 100.0, 500.0 // per period
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
		if late := backlog / takes * EveryMs; late > 50 {
			worst = max(worst, late)
			r.Report(Report{LateMs: int64(late), Events: int(in)})
		}
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
