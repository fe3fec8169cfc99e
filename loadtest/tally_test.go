package loadtest

import (
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/crowd"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// A machine that is full skips looks and reports: a second without any must not
// look like one in which all connections were gone and the servers slept.
func TestASecondWithoutALookIsNotShownAsSilence(t *testing.T) {
	c, err := crowd.New(crowd.Shape{Prefix: "p", Users: 10, Rooms: 1, Each: 10})
	if err != nil {
		t.Fatal(err)
	}
	tl := newTally(c, 1, 0)
	report := func(second int, live int) {
		at := int64(second)*int64(time.Second) + int64(time.Second)/2
		err := tl.take(crew.Report{At: at, Seq: 5, Receivers: &crew.Receivers{Stats: swarm.Stats{Live: live}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	look := func(second int, cores float64) {
		s := tl.secondAt(int64(second) * int64(time.Second))
		s.CPU["gateway"], s.RSSMiB["gateway"] = cores, 100*cores
	}
	report(0, 7)
	look(0, 1)
	report(3, 9)
	look(3, 2)
	for i, want := range []struct {
		live  int
		cores float64
	}{{7, 1}, {7, 2}, {7, 2}, {9, 2}} {
		if s := tl.series()[i]; s.Live != want.live || s.CPU["gateway"] != want.cores || s.RSSMiB["gateway"] != 100*want.cores {
			t.Errorf("second %d: %+v, want %+v", i, s, want)
		}
	}
}
