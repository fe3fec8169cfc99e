package swarm_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/swarm"
	"github.com/madang-chat/madang/loadtest/target"
)

// A poll that is told a position beyond what it was given loses what lies between:
// the client believes its server, and the ledger does not.
func TestAnAnswerThatSaysTooMuchIsNoticed(t *testing.T) {
	for _, over := range []target.Transport{target.LongPoll, target.Polling} {
		t.Run(over.String(), func(t *testing.T) {
			st := newStage(t, by(over))
			st.server.Misdeliver = func(user, room string, n uint64) int {
				if user == "t-u3" && room == "t-r0" && n == 2 {
					return 0
				}
				return 1
			}
			st.server.Overstate(func(user, _ string) bool { return user == "t-u3" })
			st.swarm.Ramp()
			st.allLive()
			for range 3 {
				st.send(0)
			}
			st.wait("all that will come", func(s swarm.Stats) bool { return s.Arrivals == 29 })
			if j := st.judge(); j.Lost != 1 || !strings.Contains(j.Violations[0], "t-u3 never got") {
				t.Errorf("judgement %+v", j)
			}
		})
	}
}

// A server need not keep the sockets of those who poll: that costs a connection
// and loses nothing.
func TestPollsComeBackToAServerThatKeepsNoSocket(t *testing.T) {
	for _, over := range []target.Transport{target.LongPoll, target.Polling} {
		t.Run(over.String(), func(t *testing.T) {
			st := newStage(t, by(over))
			st.server.KeepNot()
			st.swarm.Ramp()
			st.allLive()
			for i := range 20 {
				st.send(i % 4)
			}
			s := st.wait("all delivered", func(s swarm.Stats) bool { return s.Arrivals == 200 && s.Returned >= 20 })
			if j := st.judge(); j.Kept != 200 || len(s.Drops) > 0 || s.Ledger.Duplicates > 0 {
				t.Errorf("judgement %+v, stats %+v", j, s)
			}
		})
	}
}

func TestPollingKeepsItsInterval(t *testing.T) {
	st := newStage(t, func(c *swarm.Config) { c.Transport, c.PollEvery = target.Polling, 200*time.Millisecond })
	st.swarm.Ramp()
	before := st.allLive()
	began := time.Now()
	time.Sleep(time.Second)
	after := st.wait("", func(swarm.Stats) bool { return true })
	polls, want := float64(after.Requests-before.Requests), 20*time.Since(began).Seconds()/0.2
	if polls < 0.7*want || polls > 1.1*want+20 {
		t.Errorf("%v polls, want some %v", polls, want)
	}
}

// A long poll is asked again when it was answered and not before.
func TestALongPollWaits(t *testing.T) {
	st := newStage(t, by(target.LongPoll))
	st.swarm.Ramp()
	before := st.allLive()
	st.send(0)
	after := st.wait("delivered, and asked again", func(s swarm.Stats) bool { return s.Arrivals == 10 && s.Requests >= before.Requests+10 })
	if after.Requests > 20+20+10+1 { // opened, first polls, and one more for each delivery
		t.Errorf("%d requests", after.Requests)
	}
	if n := st.server.Pollers(); n != 20 {
		t.Errorf("%d polls named no connection, of 20 clients", n)
	}
}

// Who connects when sends have begun asks for everything since the run's begin.
func TestALateClientMissesNothing(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, by(over))
		st.swarm.SendsBegin()
		for range 3 {
			st.send(0)
		}
		st.swarm.Ramp()
		st.allLive()
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 30 })
		if j := st.judge(); j.Kept != 30 {
			t.Errorf("judgement %+v", j)
		}
	})
}

func TestAServerThatRefusesForAWhileIsComeBackTo(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, by(over))
		st.server.RefuseSockets(http.StatusServiceUnavailable)
		st.swarm.Ramp()
		st.wait("refused", func(s swarm.Stats) bool { return s.Failures[opens[over]+": refused with 503"] >= 20 })
		st.server.RefuseSockets(0)
		st.allLive()
		if !over.Polls() {
			return
		}
		st.server.RefuseSockets(http.StatusServiceUnavailable)
		st.send(0)
		st.wait("live ones refused", func(s swarm.Stats) bool { return s.Drops["poll: refused with 503"] > 0 })
		st.server.RefuseSockets(0)
		st.allLive()
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 10 })
	})
}

// What a transport that only brings can't take, clients say over HTTP.
func TestClientsTypeLookAndReadOverHTTP(t *testing.T) {
	overEach(t, func(t *testing.T, over target.Transport) {
		st := newStage(t, func(c *swarm.Config) { c.Transport, c.APIs = over, c.Gateways })
		st.swarm.Ramp()
		st.allLive()
		for room := range 4 {
			st.send(room)
		}
		st.wait("delivered", func(s swarm.Stats) bool { return s.Arrivals == 40 })
		st.swarm.Chat(swarm.Chatter{Typing: 5, Focus: 5, Read: 5})
		st.wait("said", func(s swarm.Stats) bool {
			if len(s.Errors) > 0 {
				t.Fatal(s.Errors)
			}
			return st.server.Heard("typing") > 5 && st.server.Heard("focus") > 5 && st.server.Heard("read") > 5
		})
	})
}
