package hub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/hub"
	"github.com/madang-chat/madang/internal/chat"
)

// halfDead is a Redis of two partitions, of which one takes connections and does not
// answer: that of what is named "away…". Everybody is in a room of each.
type halfDead struct{ listener chat.Listener }

func partition(name string) int {
	if strings.HasPrefix(name, "away") {
		return 1
	}
	return 0
}

func (f *halfDead) Links() int                      { return 2 }
func (f *halfDead) LinkOf(ch chat.Channel) int      { return partition(ch.Name) }
func (f *halfDead) PartitionOf(ch chat.Channel) int { return partition(ch.Name) }

func (f *halfDead) Listen(l chat.Listener) {
	f.listener = l
	l.LinkUp(0, 1)
	l.LinkUp(1, 1)
}

func (f *halfDead) Subscribe(link int, gen uint64, chs []chat.Channel) {
	for _, ch := range chs {
		f.listener.Confirmed(link, gen, ch)
	}
}

func (f *halfDead) Unsubscribe(int, uint64, []chat.Channel) {}

func (f *halfDead) ReadUsers(_ context.Context, users []string) (states []chat.UserState, errs []error) {
	for _, u := range users {
		states = append(states, chat.UserState{Rev: 7, Rooms: []chat.IndexedRoom{{Room: "here-" + u}}})
		if u != "bob" {
			states[len(states)-1].Rooms = append(states[len(states)-1].Rooms, chat.IndexedRoom{Room: "away-" + u})
		}
	}
	return states, nil
}

func (f *halfDead) ReadRooms(ctx context.Context, qs []chat.RoomQuery) ([]chat.RoomState, []error) {
	states, errs := make([]chat.RoomState, len(qs)), make([]error, len(qs))
	for i, q := range qs {
		states[i] = chat.RoomState{Exists: true, Member: make([]bool, len(q.Users))}
		for j := range q.Users {
			states[i].Member[j] = true
		}
		if partition(q.Room) == 1 {
			<-ctx.Done()
			errs[i] = errors.New("no answer")
		}
	}
	return states, errs
}

func (f *halfDead) ReadLogs(context.Context, []chat.LogQuery) ([]chat.LogPage, []error) {
	return nil, nil
}

func (f *halfDead) Repair(context.Context, []chat.Membership) error { return nil }

// hellos are loops that note who has had a hello.
type hellos struct {
	mu  sync.Mutex
	had map[edge.ConnID]bool
}

func (l *hellos) Count() int { return 1 }

func (l *hellos) Post(_ int, cmds []edge.Cmd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range cmds {
		if c.Kind == edge.CmdUnicast {
			l.had[c.Conn] = true
		}
	}
}

func (l *hellos) has(conn edge.ConnID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.had[conn]
}

// Of a storm of clients, each has a room whose partition does not answer. Who has none
// is not to wait for theirs (F4).
func TestAPartitionThatDoesNotAnswerKeepsNoOthersAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loops := &hellos{had: map[edge.ConnID]bool{}}
		h, err := hub.New(hub.Options{Feed: &halfDead{}})
		if err != nil {
			t.Fatal(err)
		}
		h.Start(loops)
		defer h.Stop()
		n := uint32(0)
		open := func(user string) edge.ConnID {
			n++
			conn := edge.MakeConnID(0, n, 1)
			h.Post([]edge.Event{{Kind: edge.EvOpened, Conn: conn, User: user}})
			return conn
		}
		for range 40 { // four seconds: the first batches have failed
			open(fmt.Sprint("u", n))
			time.Sleep(100 * time.Millisecond)
		}
		bob := open("bob")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if !loops.has(bob) {
			t.Error("bob waits for what others have asked of a partition that is away")
		}
	})
}
