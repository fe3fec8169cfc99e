package test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
	"github.com/madang-chat/madang/internal/testkit/fleet"
)

// Gateways are killed with -9, one after the other and several at a time, under
// watchers on two others: each user who does not come back is announced as
// offline once to each watcher, within 15 s; who comes back elsewhere first is
// not announced at all. Fifty kills with MADANG_TEST_FULL=1, three without.
func TestManyKillsUnderWatchers(t *testing.T) {
	if full {
		onRedises(t, func(t *testing.T, url string) { killsUnderWatchers(t, url, 5, 10) })
		return
	}
	t.Parallel()
	killsUnderWatchers(t, testkit.Redis(t).URL(), 3, 1)
}

const (
	watchingGateways = 2
	usersPerVictim   = 6 // half of whom come back
	offlineWithin    = 15 * time.Second
)

// killed is a user of a gateway that is killed in every round.
type killed struct {
	*fleet.User
	home     *fleet.Node
	gateway  int
	comeBack bool
	killedAt time.Time
	offline  []int // told to each watcher in this round
	online   []int
}

func killsUnderWatchers(t *testing.T, url string, victims, rounds int) {
	f := fleet.StartProcesses(t, url, 1, watchingGateways+victims, fleet.Flags("gateway", "--partitions=16"), fleet.Flags("api", "--partitions=16"))
	var users []*killed
	var names []string
	byName := map[string]*killed{}
	for v := range victims {
		for i := range usersPerVictim {
			g := watchingGateways + v
			u := &killed{User: f.User(fmt.Sprintf("user%d-%d", v, i), fleet.OnGateway(g)), home: f.Gateways[g], gateway: g, comeBack: i%2 == 1}
			u.offline, u.online = make([]int, watchingGateways), make([]int, watchingGateways)
			u.Connects()
			users, names, byName[u.Name] = append(users, u), append(names, u.Name), u
		}
	}
	var watchers []*fleet.User
	for w := range watchingGateways {
		alice := f.User(fmt.Sprintf("watcher%d", w), fleet.OnGateway(w))
		alice.Connects()
		watch(t, alice, names...)
		for range names {
			if e := alice.WantEvent("presence"); e.Status != "online" {
				t.Fatalf("%s", e.Raw)
			}
		}
		watchers = append(watchers, alice)
	}
	var took []time.Duration
	// listens takes what watchers were told since the last time.
	listens := func() {
		for w, watcher := range watchers {
			for range watcher.Queued("presence") {
				e := watcher.WantEvent("presence")
				u := byName[e.User]
				if e.Status == "online" {
					u.online[w]++
					continue
				}
				u.offline[w]++
				took = append(took, time.Since(u.killedAt))
			}
		}
	}
	// wants waits until all of some users were told of so often, and fails at the
	// first who was told of more often.
	wants := func(what string, within time.Duration, of []*killed, offline, online int) {
		t.Helper()
		soon(t, within, what, func() bool {
			listens()
			for _, u := range of {
				for w := range watchers {
					if u.offline[w] > offline || u.online[w] > online {
						t.Fatalf("%s: %s was told %d times that %s is offline, %d times online", what, watchers[w].Name, u.offline[w], u.Name, u.online[w])
					}
					if u.offline[w] < offline || u.online[w] < online {
						return false
					}
				}
			}
			return true
		})
	}
	stays := func(what string, during time.Duration, of []*killed, offline, online int) {
		t.Helper()
		for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			wants(what, 0, of, offline, online)
		}
	}
	lost := slices.DeleteFunc(slices.Clone(users), func(u *killed) bool { return u.comeBack })
	back := slices.DeleteFunc(slices.Clone(users), func(u *killed) bool { return !u.comeBack })
	for range rounds {
		for _, u := range users {
			for w := range watchers {
				u.offline[w], u.online[w] = 0, 0
			}
		}
		for _, g := range f.Gateways[watchingGateways:] {
			g.Kill()
			now := time.Now()
			for _, u := range users {
				if u.home == g {
					u.killedAt = now
				}
			}
			time.Sleep(rand.N(500 * time.Millisecond)) // the kills fall into different moments of leases
		}
		for _, u := range back { // on any of those that live, before its gateway's death is known
			time.Sleep(rand.N(150 * time.Millisecond))
			u.Reconnects(fleet.Afresh, rand.N(watchingGateways))
		}
		wants("who does not come back is offline", offlineWithin+time.Second, lost, 1, 0)
		stays("the other gateways notice, too, and tell nobody again", 4*time.Second, lost, 1, 0)
		wants("who came back does not flap", 0, back, 0, 0)

		for _, g := range f.Gateways[watchingGateways:] {
			g.Restart()
		}
		for _, g := range f.Gateways[watchingGateways:] {
			g.WaitReady()
		}
		for _, u := range users {
			u.Reconnects(fleet.Afresh, u.gateway)
		}
		wants("who was gone is online again", 5*time.Second, lost, 1, 1)
		wants("who moved home does not flap", 0, back, 0, 0)
	}
	slices.Sort(took)
	t.Logf("%d kills, %d announcements of %d users: told after %v to %v, median %v",
		rounds*victims, len(took), len(lost), took[0].Round(10*time.Millisecond), took[len(took)-1].Round(10*time.Millisecond), took[len(took)/2].Round(10*time.Millisecond))
	if longest := took[len(took)-1]; longest > offlineWithin {
		t.Errorf("told after %v, want at most %v", longest, offlineWithin)
	}
	if first := took[0]; first < 6*time.Second { // 10 s after the last renewal, which may be 3 s old
		t.Errorf("declared dead after %v already", first)
	}
}
