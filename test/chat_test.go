package test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

func TestTwoPeopleChatAcrossTwoGateways(t *testing.T) {
	for name, redisURL := range map[string]func(*testing.T) string{
		"redis":     func(t *testing.T) string { return testkit.Redis(t).URL() },
		"embedded":  func(t *testing.T) string { return testkit.Mini(t).URL() },
		"cluster":   func(t *testing.T) string { return testkit.Cluster(t, 3, 0).URL() },
		"sentinels": func(t *testing.T) string { return testkit.Sentinel(t).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			twoPeopleChat(t, redisURL(t), fleet.WebSocket)
		})
	}
}

// The same conversation over every transport, with somebody on a WebSocket.
func TestTwoPeopleChatOverEveryTransport(t *testing.T) {
	for _, via := range fleet.Transports[1:] {
		t.Run(via.String(), func(t *testing.T) {
			t.Parallel()
			twoPeopleChat(t, testkit.Redis(t).URL(), via)
		})
	}
}

// twoPeopleChat: alice is on a WebSocket, the others listen as via says.
func twoPeopleChat(t *testing.T, redisURL string, via fleet.Transport) {
	f := fleet.Start(t, redisURL, 2, 2)
	alice := f.User("alice", fleet.OnAPI(0), fleet.OnGateway(0))
	bob := f.User("bob", fleet.OnAPI(1), fleet.OnGateway(1), fleet.Via(via))
	carol := f.User("carol", fleet.OnGateway(1), fleet.Via(via)) // a stranger

	alice.CreatesRoom("yard", "bob")
	alice.Connects()
	bob.Connects()
	carol.Connects()

	alice.Sends("yard", "hi")
	bob.WantMessage("yard", "hi")
	alice.WantMessage("yard", "hi")
	bob.Sends("yard", "hi yourself")
	alice.WantMessage("yard", "hi yourself")
	bob.WantMessage("yard", "hi yourself")
	carol.WantNothing()

	alice.Adds("yard", "carol")
	carol.WantEvent("joined")
	alice.Sends("yard", "welcome")
	carol.WantMessage("yard", "welcome")
	bob.WantMessage("yard", "welcome")

	alice.Removes("yard", "carol")
	if left := carol.WantEvent("left"); left.RoomsRev == 0 {
		t.Errorf("carol is told of her removal without a revision: %+v", left)
	}
	alice.Sends("yard", "only us")
	bob.WantMessage("yard", "only us")
	carol.WantNothing()
	if again := carol.Queued("left"); len(again) > 0 {
		t.Errorf("and again: %+v", again)
	}

	bob.Disconnects()
	alice.Sends("yard", "while you were away")
	bob.Reconnects(fleet.Resuming, 0)
	bob.WantMessage("yard", "while you were away")
	if n := bob.Duplicates(); n != 0 {
		t.Errorf("%d came twice, though it resumed with positions", n)
	}
}

// TestManyMessagesThroughManyRooms: two APIs and two gateways as processes; a
// member on each gateway gets every message of the other, in order.
func TestManyMessagesThroughManyRooms(t *testing.T) {
	for name, redisURL := range map[string]func(*testing.T) string{
		"redis":   func(t *testing.T) string { return testkit.Redis(t).URL() },
		"cluster": func(t *testing.T) string { return testkit.Cluster(t, 3, 0).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			f := fleet.StartProcesses(t, redisURL(t), 2, 2)
			alice := f.User("alice", fleet.OnAPI(0), fleet.OnGateway(0), fleet.KeepingLogs())
			bob := f.User("bob", fleet.OnAPI(1), fleet.OnGateway(1), fleet.KeepingLogs())

			const rooms = 100
			perUser := volume(5_000, 100_000) / rooms / 2
			for r := range rooms {
				alice.CreatesRoom(roomName(r), "bob")
			}
			alice.Connects()
			bob.Connects()

			sent := make([][]fleet.Event, rooms) // what was acknowledged, by room
			var mu sync.Mutex
			var senders sync.WaitGroup
			for r := range rooms {
				for _, u := range []*fleet.User{alice, bob} {
					senders.Go(func() {
						for i := range perUser {
							m, err := u.Insists(roomName(r), fmt.Sprintf("%s %d", u.Name, i), fmt.Sprintf("%s-%d", u.Name, i))
							if err != nil {
								t.Error(err)
								return
							}
							mu.Lock()
							sent[r] = append(sent[r], m)
							mu.Unlock()
						}
					})
				}
			}
			senders.Wait()
			if t.Failed() {
				return
			}
			for r := range rooms {
				for _, u := range []*fleet.User{alice, bob} {
					checkLog(t, u, roomName(r), u.WantLog(roomName(r), 2*perUser), sent[r])
				}
			}
		})
	}
}

func roomName(r int) string { return fmt.Sprintf("room-%d", r) }

// checkLog compares what a member received with what was acknowledged: all of
// it, once, in the order of IDs, chained, and each sender's in the order sent.
func checkLog(t *testing.T, u *fleet.User, room string, got, acknowledged []fleet.Event) {
	t.Helper()
	want := map[string]fleet.Event{}
	for _, m := range acknowledged {
		want[m.ID] = m
	}
	next := map[string]int{}
	for i, m := range got {
		if i > 0 && (!fleet.Newer(m.ID, got[i-1].ID) || m.Prev != got[i-1].ID) {
			t.Fatalf("%s, %s: %s (prev %s) came after %s", u.Name, room, m.ID, m.Prev, got[i-1].ID)
		}
		if m.N != uint64(i+1) {
			t.Fatalf("%s, %s: %s is number %d, want %d", u.Name, room, m.ID, m.N, i+1)
		}
		if text := fmt.Sprintf("%s %d", m.From, next[m.From]); m.Body.Text != text {
			t.Fatalf("%s, %s: %q came, want %q", u.Name, room, m.Body.Text, text)
		}
		next[m.From]++
		if a, ok := want[m.ID]; !ok || a.Body != m.Body || a.From != m.From || a.Key != m.Key || a.SentAt != m.SentAt {
			t.Fatalf("%s, %s: %s is not what was acknowledged: %s", u.Name, room, m.Raw, a.Raw)
		}
		delete(want, m.ID)
	}
	if len(want) > 0 {
		t.Fatalf("%s, %s: %d acknowledged messages never came", u.Name, room, len(want))
	}
}
