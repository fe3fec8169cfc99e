package probe_test

import (
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/probe"
)

func TestASlowSpellIsSeen(t *testing.T) {
	var p probe.Pace
	for i := range 200 {
		took := time.Duration(30+i%20) * time.Microsecond
		if i >= 100 && i < 110 {
			took *= 5
		}
		p.Saw(took)
	}
	p.Saw(0)
	if looks, slow := p.Counts(); looks != 200 || slow != 10 {
		t.Errorf("%d looks, %d slow", looks, slow)
	}
}

func TestThePaceIsLookedAtAgainAndAgain(t *testing.T) {
	p := probe.WatchPace()
	defer p.Stop()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		looks, slow := p.Counts()
		if looks >= 3 && slow < looks {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("%d looks, %d slow", looks, slow)
		}
	}
}
