package test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// say writes something up a user's socket, which must be there.
func say(t *testing.T, u *fleet.User, what map[string]any) {
	t.Helper()
	if err := u.Say(what); err != nil {
		t.Fatal(err)
	}
}

func watch(t *testing.T, u *fleet.User, users ...string) {
	t.Helper()
	say(t, u, map[string]any{"type": "watch", "users": users})
}

// wantPresence waits for the next change that a watcher is told.
func wantPresence(t *testing.T, u *fleet.User, of, status string) fleet.Event {
	t.Helper()
	e := u.WantEvent("presence")
	if e.User != of || e.Status != status {
		t.Fatalf("%s was told %s, want %s %s", u.Name, e.Raw, of, status)
	}
	return e
}

// wantQuiet checks that nothing of a kind has come and does not come for a while.
func wantQuiet(t *testing.T, u *fleet.User, kind string, during time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(during); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got := u.Queued(kind); len(got) > 0 {
			t.Fatalf("%s was told %s, want nothing", u.Name, got[0].Raw)
		}
	}
}

// aliceWatchesBob has one of two users, each on a gateway, know that the other is online.
func aliceWatchesBob(t *testing.T, redisURL string) (f *fleet.Fleet, alice, bob *fleet.User) {
	t.Helper()
	f = fleet.StartProcesses(t, redisURL, 1, 2)
	alice, bob = f.User("alice", fleet.OnGateway(0)), f.User("bob", fleet.OnGateway(1))
	alice.Connects()
	bob.Connects()
	watch(t, alice, "bob")
	wantPresence(t, alice, "bob", "online")
	return f, alice, bob
}

// presenceOf asks the API.
func presenceOf(t *testing.T, u *fleet.User, of string) (status, lastSeen string) {
	t.Helper()
	res, err := u.Requests(http.MethodGet, "/v1/presence?user="+of, nil)
	if err != nil || res.Status != http.StatusOK {
		t.Fatalf("presence: %d %s %v", res.Status, res.Body, err)
	}
	var out struct {
		Presence []struct {
			User, Status string
			LastSeen     string `json:"last_seen"`
		}
	}
	res.Decode(t, &out)
	if len(out.Presence) != 1 || out.Presence[0].User != of {
		t.Fatalf("presence: %s", res.Body)
	}
	return out.Presence[0].Status, out.Presence[0].LastSeen
}

func soon(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("not within %v: %s", within, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// onRedises runs a test on a standalone server and on a Cluster. Most of it is
// waiting, so it runs beside others.
func onRedises(t *testing.T, test func(t *testing.T, url string)) {
	t.Parallel()
	t.Run("standalone", func(t *testing.T) {
		t.Parallel()
		test(t, testkit.Redis(t).URL())
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		test(t, testkit.Cluster(t, 3, 0).URL())
	})
}

const shortGrace = "--presence-grace=1s"

// Alice watches bob, who comes and goes with two devices on two gateways.
func TestPresenceAcrossGateways(t *testing.T) {
	onRedises(t, func(t *testing.T, url string) {
		f := fleet.StartProcesses(t, url, 1, 2, fleet.Flags("gateway", shortGrace, "--partitions=16"), fleet.Flags("api", "--partitions=16"))
		alice := f.User("alice", fleet.OnGateway(0))
		phone, laptop := f.User("bob", fleet.OnGateway(0)), f.User("bob", fleet.OnGateway(1))
		alice.Connects()
		watch(t, alice, "bob", "nobody")
		for range 2 {
			if e := alice.WantEvent("presence"); e.Status != "offline" || e.LastSeen != "" {
				t.Fatalf("%s", e.Raw)
			}
		}
		phone.Connects()
		wantPresence(t, alice, "bob", "online")
		laptop.Connects()
		phone.Disconnects()
		wantQuiet(t, alice, "presence", 2500*time.Millisecond)
		if status, _ := presenceOf(t, alice, "bob"); status != "online" {
			t.Fatal(status)
		}
		// A reconnect within the grace time is no event, on the same gateway or another.
		laptop.Reconnects(fleet.Afresh)
		laptop.Reconnects(fleet.Afresh, 0)
		laptop.Reconnects(fleet.Afresh, 1)
		wantQuiet(t, alice, "presence", 2500*time.Millisecond)

		left := time.Now()
		laptop.Disconnects()
		e := wantPresence(t, alice, "bob", "offline")
		if took := time.Since(left); took > 5*time.Second || took < 900*time.Millisecond {
			t.Errorf("told after %v", took)
		}
		if seen, err := time.Parse(time.RFC3339, e.LastSeen); err != nil || time.Since(seen).Abs() > 10*time.Second {
			t.Errorf("last seen %q", e.LastSeen)
		}
		if status, seen := presenceOf(t, alice, "bob"); status != "offline" || seen != e.LastSeen {
			t.Errorf("the API says %s %s", status, seen)
		}
	})
}

// A gateway is killed: who does not come back is offline for watchers within
// 15 s, announced once although two gateways notice; who came back elsewhere
// first never leaves.
func TestAKilledGatewaysUsersGoOffline(t *testing.T) {
	onRedises(t, func(t *testing.T, url string) {
		f := fleet.StartProcesses(t, url, 1, 3, fleet.Flags("gateway", "--partitions=16"), fleet.Flags("api", "--partitions=16"))
		alice := f.User("alice", fleet.OnGateway(0))
		alice.Connects()
		var all []string
		var gone, back []*fleet.User
		for i := range 6 {
			name := "user" + strconv.Itoa(i)
			u := f.User(name, fleet.OnGateway(2))
			u.Connects()
			all = append(all, name)
			if i%2 == 0 {
				gone = append(gone, u)
			} else {
				back = append(back, u)
			}
		}
		watch(t, alice, all...)
		for range all {
			if e := alice.WantEvent("presence"); e.Status != "online" {
				t.Fatalf("%s", e.Raw)
			}
		}
		f.Gateways[2].Kill()
		killed := time.Now()
		for _, u := range back {
			u.Reconnects(fleet.Afresh, 1)
		}
		told := map[string]int{}
		soon(t, 15*time.Second, "those who are gone are offline", func() bool {
			return len(alice.Queued("presence")) >= len(gone)
		})
		t.Logf("offline after %v", time.Since(killed))
		if since := time.Since(killed); since < 6*time.Second { // 10 s after the last renewal, which may be 3 s old
			t.Errorf("declared dead after %v already", since)
		}
		time.Sleep(3 * time.Second) // the other gateway may want to announce them too
		for _, e := range alice.Queued("presence") {
			if e.Status != "offline" {
				t.Errorf("%s", e.Raw)
			}
			told[e.User]++
		}
		for _, u := range gone {
			if told[u.Name] != 1 {
				t.Errorf("%s was announced %d times", u.Name, told[u.Name])
			}
		}
		for _, u := range back {
			if told[u.Name] != 0 {
				t.Errorf("%s flapped", u.Name)
			}
			if status, _ := presenceOf(t, alice, u.Name); status != "online" {
				t.Errorf("%s is %s", u.Name, status)
			}
		}
	})
}

// A gateway sleeps longer than its lease, with its sockets open: its users go
// offline, and come back with it under its new ID (DELIVERY P1).
func TestAGatewayThatSleptComesBack(t *testing.T) {
	t.Parallel()
	f, alice, bob := aliceWatchesBob(t, testkit.Redis(t).URL())
	f.Gateways[1].Pause()
	wantPresence(t, alice, "bob", "offline")
	if status, _ := presenceOf(t, alice, "bob"); status != "offline" {
		t.Errorf("the API says %s", status)
	}
	f.Gateways[1].Resume()
	wantPresence(t, alice, "bob", "online")
	if !bob.Connected() {
		t.Error("bob's socket was lost")
	}
	soon(t, 10*time.Second, "the API says online", func() bool { s, _ := presenceOf(t, alice, "bob"); return s == "online" })
	wantQuiet(t, alice, "presence", 12*time.Second) // the sweep of the old self is over by then
	bob.Disconnects()
	wantPresence(t, alice, "bob", "offline")
}

// A pause of Redis kills nobody.
func TestARedisThatPausesTakesNobodyOffline(t *testing.T) {
	t.Parallel()
	redis := testkit.Redis(t)
	_, alice, _ := aliceWatchesBob(t, redis.URL())
	redis.Pause()
	time.Sleep(14 * time.Second) // longer than a gateway may be silent
	redis.Resume()
	wantQuiet(t, alice, "presence", 12*time.Second)
	if status, _ := presenceOf(t, alice, "bob"); status != "online" {
		t.Errorf("the API says %s", status)
	}
}

// Nor does a Redis that is full: leases can't be renewed, and nobody may judge by
// that.
func TestAFullRedisTakesNobodyOffline(t *testing.T) {
	t.Parallel()
	redis := testkit.Redis(t)
	f, alice, _ := aliceWatchesBob(t, redis.URL())
	says := func(when string) {
		if status, _ := presenceOf(t, alice, "bob"); status != "online" {
			t.Errorf("%s the API says %s", when, status)
		}
	}
	says("before") // from here on it looks at the leases
	redis.Must(t, "CONFIG", "SET", "maxmemory", "1")
	time.Sleep(20 * time.Second) // longer than a gateway may be silent
	says("meanwhile")
	redis.Must(t, "CONFIG", "SET", "maxmemory", "0")
	wantQuiet(t, alice, "presence", 12*time.Second)
	soon(t, 5*time.Second, "the API says online", func() bool { s, _ := presenceOf(t, alice, "bob"); return s == "online" })
	if died := f.Gateways[0].Metric("madang_fleet_deaths_total") + f.Gateways[1].Metric("madang_fleet_deaths_total"); died > 0 {
		t.Errorf("%v gateways were declared dead", died)
	}
}

// Redis comes back empty: presence heals by itself, and no watcher sees everybody
// leave and return.
func TestPresenceHealsWhenRedisComesBackEmpty(t *testing.T) {
	t.Parallel()
	redis := testkit.Redis(t)
	f := fleet.StartProcesses(t, redis.URL(), 1, 2)
	alice := f.User("alice", fleet.OnGateway(0))
	alice.Connects()
	const users = 50
	var names []string
	for i := range users {
		u := f.User(fmt.Sprintf("user%d", i), fleet.OnGateway(i%2))
		u.Connects()
		names = append(names, u.Name)
	}
	watch(t, alice, names...)
	for range names {
		alice.WantEvent("presence")
	}
	if err := redis.Restart(); err != nil {
		t.Fatal(err)
	}
	f.WaitReady()
	began := time.Now()
	for _, name := range names {
		soon(t, 30*time.Second, name+" is online again", func() bool {
			res, err := alice.Requests(http.MethodGet, "/v1/presence?user="+name, nil)
			return err == nil && contains(string(res.Body), `"online"`)
		})
	}
	t.Logf("healed in %v", time.Since(began))
	wantQuiet(t, alice, "presence", 3*time.Second)
}

// Two devices of bob and one of alice, on two gateways: sent, delivered, read;
// typing; unread counts.
func TestTypingAndReceipts(t *testing.T) {
	onRedises(t, func(t *testing.T, url string) {
		f := fleet.StartProcesses(t, url, 1, 2, fleet.Flags("gateway", "--partitions=16"), fleet.Flags("api", "--partitions=16"))
		alice := f.User("alice", fleet.OnGateway(0))
		phone, laptop := f.User("bob", fleet.OnGateway(1)), f.User("bob", fleet.OnGateway(0))
		carol := f.User("carol", fleet.OnGateway(1))
		alice.CreatesRoom("yard", "bob", "carol")
		for _, u := range []*fleet.User{alice, phone, laptop, carol} {
			u.Connects()
		}
		say(t, alice, map[string]any{"type": "focus", "room": "yard"})
		sent := alice.Sends("yard", "hi")
		phone.WantMessage("yard", "hi")

		// Delivered, then read: alice, who looks at the room, sees both.
		say(t, phone, map[string]any{"type": "delivered", "room": "yard", "id": sent.ID})
		if e := alice.WantEvent("delivered"); e.User != "bob" || e.ID != sent.ID || e.Room != "yard" {
			t.Fatalf("%s", e.Raw)
		}
		if n := unread(t, phone, "yard"); n != 1 {
			t.Errorf("unread %d", n)
		}
		say(t, phone, map[string]any{"type": "read", "room": "yard", "id": sent.ID})
		if e := alice.WantEvent("read"); e.User != "bob" || e.ID != sent.ID {
			t.Fatalf("%s", e.Raw)
		}
		if e := laptop.WantEvent("read"); e.User != "bob" || e.ID != sent.ID { // another device of bob's
			t.Fatalf("%s", e.Raw)
		}
		if n := unread(t, phone, "yard"); n != 0 {
			t.Errorf("unread %d", n)
		}

		// Focus reads by itself, over HTTP too.
		phone.Disconnects()
		hello := reconnect(t, phone)
		if res, err := phone.Requests(http.MethodPost, "/v1/focus", map[string]any{"conn": hello.Conn, "room": "yard"}); err != nil || res.Status != 204 {
			t.Fatalf("%d %s %v", res.Status, res.Body, err)
		}
		time.Sleep(1100 * time.Millisecond) // the marker may move once a second
		second := alice.Sends("yard", "second")
		for {
			if e := alice.WantEvent("read"); e.ID == second.ID && e.User == "bob" {
				break
			}
		}
		if n := unread(t, laptop, "yard"); n != 0 {
			t.Errorf("unread %d", n)
		}

		// Typing: to those who look at the room, and nobody else.
		if res, err := phone.Requests(http.MethodPost, "/v1/typing", map[string]any{"conn": hello.Conn, "room": "yard"}); err != nil || res.Status != 204 {
			t.Fatalf("%d %s %v", res.Status, res.Body, err)
		}
		if e := alice.WantEvent("typing"); e.User != "bob" || e.Room != "yard" || e.UntilMs != 5000 {
			t.Fatalf("%s", e.Raw)
		}
		say(t, alice, map[string]any{"type": "typing", "room": "yard"})
		if e := phone.WantEvent("typing"); e.User != "alice" {
			t.Fatalf("%s", e.Raw)
		}
		for _, u := range []*fleet.User{carol, laptop} {
			if got := u.Queued("typing"); len(got) > 0 {
				t.Errorf("%s, who looks at nothing, was told %s", u.Name, got[0].Raw)
			}
		}
		if got := carol.Queued("read"); len(got) > 0 {
			t.Errorf("carol was told %s", got[0].Raw)
		}

		// What a room's log forgets changes nothing about what is unread.
		for i := range 5 {
			alice.Sends("yard", strconv.Itoa(i))
		}
		if n := unread(t, carol, "yard"); n != 7 {
			t.Errorf("carol's unread: %d", n)
		}
	})
}

func reconnect(t *testing.T, u *fleet.User) fleet.Event {
	t.Helper()
	before := u.Connected()
	if before {
		t.Fatal("still connected")
	}
	if err := u.ConnectQuietly(); err != nil {
		t.Fatal(err)
	}
	return u.WantEvent("hello")
}

func unread(t *testing.T, u *fleet.User, room string) int {
	t.Helper()
	var page struct {
		Rooms []struct {
			ID     string
			Unread int
		}
	}
	res, err := u.Requests(http.MethodGet, "/v1/rooms", nil)
	if err != nil || res.Status != http.StatusOK {
		t.Fatalf("rooms: %d %s %v", res.Status, res.Body, err)
	}
	res.Decode(t, &page)
	for _, r := range page.Rooms {
		if r.ID == room {
			return r.Unread
		}
	}
	t.Fatalf("no %s in %s", room, res.Body)
	return 0
}

// What is not allowed gives an error to who says it, and nothing to others.
func TestNonsenseAboutRooms(t *testing.T) {
	t.Parallel()
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1)
	alice, bob, eve := f.User("alice"), f.User("bob"), f.User("eve")
	alice.CreatesRoom("yard", "bob")
	for _, u := range []*fleet.User{alice, bob, eve} {
		u.Connects()
	}
	say(t, alice, map[string]any{"type": "focus", "room": "yard"})
	sent := alice.Sends("yard", "hi")
	bob.WantMessage("yard", "hi")

	wantError := func(u *fleet.User, code string, what map[string]any) {
		t.Helper()
		say(t, u, what)
		if e := u.WantEvent("error"); e.Code != code {
			t.Fatalf("%v: %s, want %s", what, e.Raw, code)
		}
	}
	for _, room := range []string{"yard", "nowhere"} {
		wantError(eve, "forbidden", map[string]any{"type": "focus", "room": room})
		wantError(eve, "forbidden", map[string]any{"type": "typing", "room": room})
		wantError(eve, "forbidden", map[string]any{"type": "read", "room": room, "id": sent.ID})
		wantError(eve, "forbidden", map[string]any{"type": "delivered", "room": room, "id": sent.ID})
	}
	wantError(bob, "invalid", map[string]any{"type": "read", "room": "yard", "id": "99999999999999-0"})
	wantError(bob, "invalid", map[string]any{"type": "delivered", "room": "yard", "id": "5-5"})
	wantError(bob, "invalid", map[string]any{"type": "read", "room": "yard", "id": "0-0"})
	second := alice.Sends("yard", "second")
	bob.WantMessage("yard", "second")
	say(t, bob, map[string]any{"type": "read", "room": "yard", "id": second.ID})
	wantError(bob, "invalid", map[string]any{"type": "read", "room": "yard", "id": sent.ID})
	if e := alice.WantEvent("read"); e.ID != second.ID {
		t.Fatalf("%s", e.Raw)
	}
	// A flood of typing is one event in two seconds for the others.
	for range 30 {
		say(t, bob, map[string]any{"type": "typing", "room": "yard"})
	}
	alice.WantEvent("typing")
	wantQuiet(t, alice, "typing", time.Second)
	for _, kind := range []string{"read", "delivered", "error", "presence"} {
		if got := alice.Queued(kind); len(got) > 0 {
			t.Errorf("alice was told %s", got[0].Raw)
		}
	}
	if !eve.Connected() || !bob.Connected() {
		t.Error("an error ended a connection")
	}
}

// A client that went silent without a word is offline when its heartbeat is
// overdue.
func TestADeadSocketGoesOffline(t *testing.T) {
	t.Parallel()
	f := fleet.StartProcesses(t, testkit.Redis(t).URL(), 1, 1, fleet.Flags("gateway", shortGrace, "--heartbeat=1s", "--heartbeat-grace=1s"))
	alice, bob := f.User("alice"), f.User("bob")
	alice.Connects()
	watch(t, alice, "bob")
	wantPresence(t, alice, "bob", "offline")
	conn, _, err := bob.Dial("") // nobody reads it, so nobody answers pings
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow() //nolint:errcheck // it may be gone
	wantPresence(t, alice, "bob", "online")
	began := time.Now()
	wantPresence(t, alice, "bob", "offline")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("offline after %v", took)
	}
}

// A ticket opens one socket, as the user it was given to.
func TestATicketOpensASocket(t *testing.T) {
	f := fleet.Start(t, testkit.Redis(t).URL(), 1, 1)
	alice := f.User("alice")
	res, err := alice.Requests(http.MethodPost, "/v1/tickets", nil)
	if err != nil || res.Status != http.StatusCreated {
		t.Fatalf("%d %s %v", res.Status, res.Body, err)
	}
	var ticket struct{ Ticket string }
	res.Decode(t, &ticket)
	dial := func() (hello string, status int) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		conn, res, err := websocket.Dial(ctx, "ws://"+f.Gateways[0].Addr+"/v1/ws?ticket="+ticket.Ticket,
			&websocket.DialOptions{Subprotocols: []string{"madang.v1"}})
		if err != nil {
			if res == nil {
				t.Fatal(err)
			}
			return "", res.StatusCode
		}
		defer conn.CloseNow() //nolint:errcheck // it is over
		_, frame, err := conn.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(frame), res.StatusCode
	}
	if hello, status := dial(); !contains(hello, `"type":"hello"`, `"user":"alice"`) {
		t.Fatalf("%d %s", status, hello)
	}
	if _, status := dial(); status != http.StatusUnauthorized {
		t.Fatalf("the second time: %d", status)
	}
}
