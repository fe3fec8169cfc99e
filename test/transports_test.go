package test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// Many messages in many rooms, while gateways are killed and come back: nothing is
// lost and nothing comes out of order, over any transport, with positions or with
// times; and with positions nothing comes twice either.
func TestEveryTransportThroughKills(t *testing.T) {
	t.Parallel()
	const rooms = 8
	perRoom := volume(250, 5000)
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 1, 2)
	alice := f.User("alice")
	receivers := []*fleet.User{
		f.User("events", fleet.Via(fleet.Events), fleet.KeepingLogs()),
		f.User("times", fleet.Via(fleet.Events), fleet.KeepingLogs()),
		f.User("polls", fleet.Via(fleet.Polls), fleet.KeepingLogs()),
		f.User("polls2", fleet.Via(fleet.Polls), fleet.KeepingLogs(), fleet.OnGateway(1)),
	}
	for r := range rooms {
		alice.CreatesRoom(roomName(r), "events", "times", "polls", "polls2")
	}
	var stops []func()
	for _, u := range receivers {
		u.Connects()
		stops = append(stops, u.StaysConnected(u.Name == "times"))
	}
	sent := make([][]fleet.Event, rooms)
	var senders sync.WaitGroup
	for r := range rooms {
		senders.Go(func() {
			for i := range perRoom {
				m, err := alice.Insists(roomName(r), fmt.Sprintf("alice %d", i), fmt.Sprint(i))
				if err != nil {
					t.Error(err)
					return
				}
				sent[r] = append(sent[r], m)
				time.Sleep(10 * time.Millisecond) // so that kills fall in between
			}
		})
	}
	for i := range volume(3, 20) {
		time.Sleep(700 * time.Millisecond) // some are sent and received
		f.Gateways[i%2].Kill()
		f.Gateways[i%2].Restart()
		f.Gateways[i%2].WaitReady()
	}
	senders.Wait()
	for _, u := range receivers {
		for r := range rooms {
			checkLog(t, u, roomName(r), u.WantLog(roomName(r), perRoom), sent[r])
		}
		if n := u.Duplicates(); n != 0 && u.Name != "times" {
			t.Errorf("%s: %d came twice", u.Name, n)
		}
		if gaps := u.Queued("gap"); len(gaps) > 0 {
			t.Errorf("%s was told %d gaps", u.Name, len(gaps))
		}
	}
	for _, stop := range stops {
		stop()
	}
}

// A page that comes back with the time of its last event gets what it missed, and
// what is a minute older once more.
func TestEventsResumeFromATime(t *testing.T) {
	t.Parallel()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2)
	alice := f.User("alice")
	bob := f.User("bob", fleet.Via(fleet.Events))
	alice.CreatesRoom("yard", "bob")
	alice.CreatesRoom("quiet", "bob")
	bob.Connects()
	fleet.Await(t, "hello said a time", func() bool { return bob.LastEventID() != "" })
	alice.Sends("yard", "one")
	last := bob.WantMessage("yard", "one")
	if ms, _, _ := strings.Cut(last.ID, "-"); bob.LastEventID() != ms {
		t.Errorf("the last time is %s, the message's %s", bob.LastEventID(), last.ID)
	}
	bob.Disconnects()
	alice.Sends("yard", "two")
	alice.Sends("quiet", "shh")
	bob.MovesTo(1)
	if err := bob.ResumesByTime(); err != nil {
		t.Fatal(err)
	}
	bob.WantEvent("resumed")
	texts := map[string]bool{}
	for _, m := range bob.Queued("message") {
		texts[m.Body.Text] = true
	}
	if len(texts) != 2 || !texts["two"] || !texts["shh"] || bob.Duplicates() != 1 {
		t.Errorf("got %v, and %d that were known", texts, bob.Duplicates())
	}
	// A user without rooms has a time, too, and it is no older than it must be.
	carol := f.User("carol", fleet.Via(fleet.Events))
	carol.Connects()
	if ms, err := strconv.ParseInt(carol.LastEventID(), 10, 64); err != nil || time.Since(time.UnixMilli(ms)) > 10*time.Second {
		t.Errorf("carol's time is %q", carol.LastEventID())
	}
}

// What lies between two polls is in the next answer, also when it goes elsewhere.
func TestPollsAreExact(t *testing.T) {
	t.Parallel()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2)
	alice := f.User("alice")
	bob := f.User("bob", fleet.Via(fleet.Polls))
	alice.CreatesRoom("yard", "bob")
	alice.CreatesRoom("quiet", "bob")
	bob.Connects()
	bob.Disconnects()
	at := bob.Polled()
	if len(at) != 2 || at["yard"] != "0-0" || at["quiet"] != "0-0" {
		t.Fatalf("positions are %v", at)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for i := range 20 {
		var want []string
		for j := range i % 3 {
			want = append(want, alice.Sends("yard", fmt.Sprint(j)).ID)
		}
		bob.MovesTo(i % 2)
		for first := true; first || len(want) > 0; first = false {
			a, err := bob.Poll(ctx, at, 0)
			if err != nil {
				t.Fatal(err)
			}
			// Where the rooms are followed already, what was sent a moment ago may
			// still be on its way; then the next answer has it.
			for _, ev := range a.Events {
				if len(want) == 0 || !contains(string(ev), `"id":"`+want[0]+`"`) {
					t.Fatalf("poll %d: got %s, want %v", i, a.Events, want)
				}
				at["yard"], want = want[0], want[1:]
			}
			if fmt.Sprint(a.Rooms) != fmt.Sprint(at) {
				t.Fatalf("poll %d: the positions are %v, want %v", i, a.Rooms, at)
			}
		}
	}
	// More than the log may push is told as a gap, from which the next poll goes on.
	if a, err := bob.Poll(ctx, map[string]string{"yard": "1-0", "quiet": "0-0"}, 0); err != nil || len(a.Events) != 1 || !contains(string(a.Events[0]), `"gap"`, `"after":"1-0"`) || a.Rooms["yard"] != at["yard"] {
		t.Errorf("got %s %v, %v", a.Events, a.Rooms, err)
	}
}

// Who polls is online, between two polls, too.
func TestWhoPollsIsOnline(t *testing.T) {
	t.Parallel()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2, fleet.Gateway(func(c *config.Gateway) { c.PresenceGrace = time.Second }))
	alice := f.User("alice", fleet.OnGateway(1))
	bob := f.User("bob", fleet.Via(fleet.Polls))
	alice.Connects()
	if err := alice.Say(map[string]any{"type": "watch", "users": []string{"bob"}}); err != nil {
		t.Fatal(err)
	}
	if e := alice.WantEvent("presence"); e.Status != "offline" {
		t.Fatalf("got %s", e.Raw)
	}
	bob.Connects()
	if e := alice.WantEvent("presence"); e.Status != "online" {
		t.Fatalf("got %s", e.Raw)
	}
	time.Sleep(2 * pollCycle) // several polls
	if e := alice.Queued("presence"); len(e) != 0 {
		t.Fatalf("got %s meanwhile", e[0].Raw)
	}
	bob.Disconnects()
	if e := alice.WantEvent("presence"); e.Status != "offline" {
		t.Fatalf("got %s", e.Raw)
	}
}

// pollCycle is longer than the polls of testkit's users wait.
const pollCycle = 2500 * time.Millisecond

// A drain asks everybody to leave, and they miss nothing elsewhere.
func TestADrainOfEveryTransport(t *testing.T) {
	t.Parallel()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2, fleet.Gateway(func(c *config.Gateway) { c.DrainTimeout = 5 * time.Second }))
	alice := f.User("alice")
	events, polls := f.User("events", fleet.Via(fleet.Events)), f.User("polls", fleet.Via(fleet.Polls))
	alice.CreatesRoom("yard", "events", "polls")
	events.Connects()
	polls.Connects()
	alice.Sends("yard", "here")
	events.WantMessage("yard", "here")
	polls.WantMessage("yard", "here")
	f.Gateways[0].Stop()
	for _, u := range []*fleet.User{events, polls} {
		fleet.Await(t, u.Name+" is disconnected", func() bool { return !u.Connected() })
		if bye := u.Queued("bye"); len(bye) == 1 && bye[0].Reason != "drain" || len(bye) == 0 && u == events {
			t.Errorf("%s was told %v", u.Name, bye) // a poll that comes after the drain began is answered 503
		}
	}
	alice.Sends("yard", "elsewhere")
	for _, u := range []*fleet.User{events, polls} {
		u.Reconnects(fleet.Resuming, 1)
		u.WantMessage("yard", "elsewhere")
	}
}

// Who is disconnected by the back end is told so, and does not get in again with the
// old token.
func TestDisconnectingEveryTransport(t *testing.T) {
	t.Parallel()
	keys, key := filepath.Join(t.TempDir(), "keys"), strings.Repeat("k", 40)
	if err := os.WriteFile(keys, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1, fleet.API(func(c *config.API) { c.ServerKeyFile = keys }))
	for _, via := range []fleet.Transport{fleet.Events, fleet.Polls} {
		u := f.User("user-"+via.String(), fleet.Via(via))
		u.Connects()
		res, err := u.Requests(http.MethodPost, "/v1/users/"+u.Name+"/disconnect", nil, "Authorization", "Bearer "+key)
		if err != nil || res.Status/100 != 2 {
			t.Fatalf("%d %s %v", res.Status, res.Body, err)
		}
		fleet.Await(t, u.Name+" is disconnected", func() bool { return !u.Connected() })
		if bye := u.Queued("bye"); len(bye) == 1 && bye[0].Reason != "revoked" || len(bye) == 0 && via == fleet.Events {
			t.Errorf("%s was told %v", via, bye)
		}
		switch err := u.Resume(); {
		case via == fleet.Polls && (err == nil || !contains(err.Error(), "401", "token_expired")):
			t.Errorf("it polls again: %v", err)
		case via == fleet.Events:
			fleet.Await(t, "it is disconnected again", func() bool { return err != nil || !u.Connected() })
		}
	}
}

// What a WebSocket client says on its socket, one of events says over HTTP, with the
// connection of its hello.
func TestWhatEventsClientsSayOverHTTP(t *testing.T) {
	t.Parallel()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 2)
	alice := f.User("alice", fleet.OnGateway(1))
	bob := f.User("bob", fleet.Via(fleet.Events))
	alice.CreatesRoom("yard", "bob")
	alice.Connects()
	if err := alice.Say(map[string]any{"type": "focus", "room": "yard"}); err != nil {
		t.Fatal(err)
	}
	if err := bob.ConnectQuietly(); err != nil {
		t.Fatal(err)
	}
	conn := bob.WantEvent("hello").Conn
	says := func(path string, body map[string]any) {
		t.Helper()
		body["conn"] = conn
		if res, err := bob.Requests(http.MethodPost, path, body); err != nil || res.Status != http.StatusNoContent {
			t.Fatalf("%s: %d %s %v", path, res.Status, res.Body, err)
		}
	}
	says("/v1/watch", map[string]any{"users": []string{"alice", "zoe"}})
	for range 2 {
		if e := bob.WantEvent("presence"); (e.User == "alice") != (e.Status == "online") {
			t.Errorf("got %s", e.Raw)
		}
	}
	first := alice.Sends("yard", "first")
	bob.WantMessage("yard", "first")
	says("/v1/delivered", map[string]any{"room": "yard", "id": first.ID})
	if e := alice.WantEvent("delivered"); e.User != "bob" || e.ID != first.ID {
		t.Errorf("got %s", e.Raw)
	}
	says("/v1/focus", map[string]any{"room": "yard"})
	if e := alice.WantEvent("read"); e.User != "bob" || e.ID != first.ID {
		t.Errorf("got %s", e.Raw)
	}
	says("/v1/typing", map[string]any{"room": "yard"})
	if e := alice.WantEvent("typing"); e.User != "bob" {
		t.Errorf("got %s", e.Raw)
	}
	if err := alice.Say(map[string]any{"type": "typing", "room": "yard"}); err != nil {
		t.Fatal(err)
	}
	if e := bob.WantEvent("typing"); e.User != "alice" {
		t.Errorf("got %s", e.Raw)
	}
	// What is wrong with it is told on the connection.
	says("/v1/delivered", map[string]any{"room": "yard", "id": "5-0"})
	if e := bob.WantEvent("error"); e.Code != "invalid" {
		t.Errorf("got %s", e.Raw)
	}
}
