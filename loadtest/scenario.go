package loadtest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
)

// scenarios are what a run can do: sequences of phases.
var scenarios map[string]func(*run) error

func init() { // the scenarios refer to the map's keys when a spec is checked
	scenarios = map[string]func(*run) error{
		"hold":     hold,
		"fanout":   fanout,
		"storm":    storm,
		"slow":     slow,
		"capacity": capacity,
		"check":    check,
		"chat":     chat,
		"compare":  compare,
	}
}

// Scenarios are their names.
func Scenarios() []string { return slices.Sorted(maps.Keys(scenarios)) }

// hold opens all connections and keeps them, with or without sends.
func hold(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	if r.spec.sends() {
		if err := r.beginSends(r.spec.Rate); err != nil {
			return err
		}
	}
	return r.phase("hold", func() error { return r.rest(r.spec.Duration) })
}

// fanout sends to all rooms for a while.
func fanout(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	if err := r.warmUp(); err != nil {
		return err
	}
	return r.phase("fanout", func() error {
		if err := r.ensureSends(); err != nil {
			return err
		}
		if err := r.rest(r.spec.Duration); err != nil {
			return err
		}
		if !r.spec.flatOut() {
			return nil
		}
		// Flat out, what was accepted and is not yet delivered belongs to the
		// rate: a server that accepts faster than it delivers is not faster.
		return r.drain()
	})
}

// warmUp sends before what is measured.
func (r *run) warmUp() error {
	if r.spec.Warmup == 0 {
		return nil
	}
	return r.phase("warm-up", func() error { return errors.Join(r.ensureSends(), r.rest(r.spec.Warmup)) })
}

// ensureSends begins the sends, if no warm-up has.
func (r *run) ensureSends() error {
	if r.sending {
		return nil
	}
	return r.beginSends(r.spec.Rate)
}

// storm drops all connections at once and waits until all are back.
func storm(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	if r.spec.sends() {
		if err := r.beginSends(r.spec.Rate); err != nil {
			return err
		}
		if err := r.phase("before", func() error { return r.rest(r.spec.Duration) }); err != nil {
			return err
		}
	}
	for n := range r.spec.Times {
		err := r.phase(fmt.Sprintf("storm %d", n+1), func() error {
			returned := r.tally.receivers().Returned
			dropped := uint64(r.tally.live())
			err := r.crew.All(crew.Order{Verb: crew.Drop, Share: 1, Spread: r.spec.StormSpread, Rate: r.spec.ConnectRate / float64(r.receivers)})
			if err != nil {
				return err
			}
			patience := r.spec.StormSpread + r.spec.ConnectTimeout + 30*time.Second
			err = r.until(patience, func() bool {
				now := r.tally.receivers()
				return now.Returned-returned >= dropped || now.Live+now.Gone == r.spec.Clients && now.Returned > returned
			})
			if errors.Is(err, errTimeout) {
				r.problem("%d of %d clients were not back %v after all were dropped", int(dropped)-r.tally.live(), dropped, patience)
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
		if r.spec.sends() {
			err := r.phase(fmt.Sprintf("after %d", n+1), func() error { return r.rest(r.spec.Duration) })
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// slow lets a share of the clients stop reading, and looks at the others; again as
// often as it is told.
func slow(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	if err := r.beginSends(r.spec.Rate); err != nil {
		return err
	}
	stalled := int(r.spec.SlowShare * float64(r.spec.Clients))
	share := (stalled + r.receivers - 1) / r.receivers
	for n := range r.spec.Times {
		round := ""
		if r.spec.Times > 1 {
			round = fmt.Sprintf(" %d", n+1)
		}
		for _, p := range []struct {
			name  string
			order *crew.Order
			takes time.Duration
		}{
			{"all read", nil, r.spec.Duration},
			{"some do not read", &crew.Order{Verb: crew.Stall, Count: share}, r.spec.SlowFor},
			{"all read again", &crew.Order{Verb: crew.Unstall}, r.spec.Duration},
		} {
			err := r.phase(p.name+round, func() error {
				if p.order != nil {
					if err := r.crew.All(*p.order); err != nil {
						return err
					}
				}
				return r.rest(p.takes)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// check sends for a while, whatever happens to the servers, and then waits until
// all clients are back and have everything: only the ledger counts. With
// Times, all clients are dropped so many times on the way.
func check(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	part := r.spec.Duration / time.Duration(r.spec.Times+1)
	err := r.phase("check", func() error {
		if err := r.beginSends(r.spec.Rate); err != nil {
			return err
		}
		for range r.spec.Times {
			if err := r.rest(part); err != nil {
				return err
			}
			if err := r.crew.All(crew.Order{Verb: crew.Drop, Share: 1, Spread: r.spec.StormSpread}); err != nil {
				return err
			}
		}
		return r.rest(part)
	})
	if err != nil {
		return err
	}
	return r.phase("drain", func() error {
		err := r.until(r.spec.Drain, func() bool { return r.tally.live() == r.spec.Clients })
		if err != nil && !errors.Is(err, errTimeout) {
			return err
		}
		if missing := r.spec.Clients - r.tally.live(); missing > 0 {
			r.problem("%d of %d clients were not back %v after the sends ended: %s", missing, r.spec.Clients, r.spec.Drain, remedy(r.tally.receivers().Failures.Most()))
		}
		return r.drain()
	})
}

// ramp opens all connections.
func (r *run) ramp() error {
	return r.phase("ramp", func() error {
		if err := r.crew.All(crew.Order{Verb: crew.Ramp}); err != nil {
			return err
		}
		err := r.until(r.spec.RampTimeout, func() bool {
			now := r.tally.receivers()
			return now.Live+now.Gone >= r.spec.Clients
		})
		now := r.tally.receivers()
		if now.Live == 0 && !errors.Is(err, errInterrupted) {
			return fmt.Errorf("no client could connect: %s", remedy(now.Failures.Most()))
		}
		if errors.Is(err, errTimeout) {
			r.problem("%d of %d clients were not connected after %v: %s", r.spec.Clients-now.Live, r.spec.Clients, r.spec.RampTimeout, remedy(now.Failures.Most()))
			return nil
		}
		if now.Gone > 0 {
			r.problem("%d of %d clients could not connect: %s", now.Gone, r.spec.Clients, remedy(now.Failures.Most()))
		}
		return err
	})
}

// remedy says what to do about a failure to connect.
func remedy(reason string) string {
	for sign, advice := range map[string]string{
		"refused with 401":             "the gateway does not accept our tokens: give the secret that it runs with (--jwt-secret, --jwt-secret-file; --jwt-issuer and --jwt-audience if it checks them)",
		"refused with 404":             "there is no such path: is --gateway a gateway's address, and is --target right?",
		"refused with 503":             "the gateway is not ready or sheds connections: see its log",
		"refused with 429":             "the gateway limits connections: see its --max-conns settings",
		"too many open files":          "a process has no descriptors left: raise the limit of this program, or of the gateway (ulimit -n)",
		"cannot assign requested":      "ports are exhausted: give more addresses to connect from (--source), or wait for TIME_WAIT to end",
		"connection refused":           "nobody listens there: is the gateway running?",
		"connection reset":             "the gateway resets connections: see its log and limits",
		"no answer":                    "the gateway does not answer in time: is it at its limit of open files (ulimit -n, madang doctor)? Else lower --connect-rate or --in-flight, or give --connect-timeout",
		"hello: not come":              "the gateway accepts but does not say hello: is its Redis reachable? See its log and /readyz",
		"not an HTTP":                  "this is no HTTP server",
		"is not HTTP/1.1":              "this is no HTTP server",
		"cannot allocate memory":       "this machine's memory is used up",
		"no buffer space":              "the kernel's memory for sockets is used up (net.ipv4.tcp_mem)",
		"wrong Sec-WebSocket-Accept":   "this is no WebSocket server",
		"closed by the server without": "the server closed during the upgrade: see its log",
	} {
		if strings.Contains(reason, sign) {
			return reason + ": " + advice
		}
	}
	return reason
}

func (r *run) beginSends(rate float64) error {
	r.sending = true
	if err := r.crew.All(crew.Order{Verb: crew.SendsBegin}); err != nil {
		return err
	}
	return r.crew.All(crew.Order{Verb: crew.BeginSends, Rate: max(0, rate)})
}

// drain ends the sends and waits for what is owed: until everything that was
// acknowledged has arrived, or nothing has come for a while.
func (r *run) drain() error {
	if !r.sending {
		return nil
	}
	r.sending = false
	if err := r.crew.All(crew.Order{Verb: crew.EndSends}); err != nil {
		return err
	}
	quiet := max(6*time.Second, 2*r.spec.PollEvery) // longer than a gateway takes to notice a dead link
	last, since := uint64(0), time.Now()
	err := r.until(r.spec.Drain, func() bool {
		sends, now := r.tally.senders(), r.tally.receivers()
		if got := now.Arrivals + now.Ledger.Filled; got != last {
			last, since = got, time.Now()
		}
		open := sends.InFlight+sends.Held > 0 || sends.Behind > 0 || now.Paging > 0
		return !open && (now.Arrivals >= r.tally.owed || time.Since(since) > quiet)
	})
	if errors.Is(err, errTimeout) {
		if err := r.crew.All(crew.Order{Verb: crew.Abandon}); err != nil {
			return err
		}
		return nil
	}
	return err
}
