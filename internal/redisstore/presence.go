package redisstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/madang-chat/madang/internal/chat"
)

const (
	// presenceTTL only cleans up after a fleet that is gone: leases decide. A
	// gateway refreshes its seats more than twice within it.
	presenceTTL = 10 * time.Minute
	// seatedTTL outlives presences, so that a dead gateway's users are announced
	// by a fleet that comes back late.
	seatedTTL = time.Hour
	// seatBatch is how many seats one script handles: enough to make the script's
	// own cost small, few enough not to hold Redis up (~0.3 ms).
	seatBatch = 100
)

var (
	takeScript  = loadScript("take")
	leaveScript = loadScript("leave")
	sealScript  = loadScript("seal")
)

var _ chat.Seats = (*Store)(nil)

// Partitions implements chat.Seats.
func (s *Store) Partitions() int { return s.opt.Partitions }

// seatRun is seats of one partition that one script handles.
type seatRun struct {
	part int
	at   []int // in the caller's list
	call *call
}

// runs sorts seats by partition and cuts them into runs.
func (s *Store) seatRuns(seats []chat.Seat) []*seatRun {
	open := map[int]*seatRun{}
	var runs []*seatRun
	for i := range seats {
		part := s.keys.partition(seats[i].User)
		r := open[part]
		if r == nil || len(r.at) == seatBatch {
			r = &seatRun{part: part}
			open[part] = r
			runs = append(runs, r)
		}
		r.at = append(r.at, i)
	}
	return runs
}

// doSeats runs the runs' calls and gives every seat its run's error.
func (s *Store) doSeats(ctx context.Context, runs []*seatRun, seats int) (errs []error) {
	calls := make([]*call, len(runs))
	for i, r := range runs {
		calls[i] = r.call
	}
	s.doAll(ctx, ephemeral, calls)
	for _, r := range runs {
		reply, err := r.call.result()
		if err == nil && reply == "DEAD" {
			err = chat.ErrDeclaredDead
		}
		if err == nil {
			continue
		}
		if errs == nil {
			errs = make([]error, seats)
		}
		for _, i := range r.at {
			errs[i] = err
		}
	}
	return errs
}

// TakeSeats implements chat.Seats.
func (s *Store) TakeSeats(ctx context.Context, gateway string, seats []chat.Seat) []error {
	runs := s.seatRuns(seats)
	for _, r := range runs {
		keys := make([]string, 1, 1+len(r.at))
		keys[0] = s.keys.seated(r.part, gateway)
		args := make([]any, 0, 5+2*len(r.at))
		args = append(args, gateway, s.publish, presenceTTL.Milliseconds(), seatedTTL.Milliseconds(), s.keys.database)
		for _, i := range r.at {
			keys = append(keys, s.keys.presence(r.part, seats[i].User))
			args = append(args, seats[i].User, appendSeat(nil, &seats[i]))
		}
		r.call = newCall(r.part, takeScript, keys, args...)
	}
	return s.doSeats(ctx, runs, len(seats))
}

// LeaveSeats implements chat.Seats.
func (s *Store) LeaveSeats(ctx context.Context, gateway string, seats []chat.Seat) []error {
	runs := s.seatRuns(seats)
	for _, r := range runs {
		r.call = s.newLeaveCall(gateway, "", seats, r)
	}
	return s.doSeats(ctx, runs, len(seats))
}

func (s *Store) newLeaveCall(gateway, why string, seats []chat.Seat, r *seatRun) *call {
	keys := make([]string, 1, 1+2*len(r.at))
	keys[0] = s.keys.seated(r.part, gateway)
	args := make([]any, 0, 4+2*len(r.at))
	args = append(args, gateway, s.publish, s.keys.database, why)
	for _, i := range r.at {
		keys = append(keys, s.keys.presence(r.part, seats[i].User), s.keys.user(r.part, seats[i].User).rooms)
		args = append(args, seats[i].User, seats[i].Seq)
	}
	return newCall(r.part, leaveScript, keys, args...)
}

// SweepSeats implements chat.Seats.
func (s *Store) SweepSeats(ctx context.Context, gateway string) (swept int, err error) {
	calls := make([]*call, s.opt.Partitions)
	for p := range calls {
		calls[p] = newCall(p, sealScript, []string{s.keys.seated(p, gateway)}, seatedTTL.Milliseconds())
	}
	s.doAll(ctx, ephemeral, calls)
	var seats []chat.Seat
	for _, c := range calls {
		reply, err1 := c.result()
		var users []any
		if err1 == nil {
			users, err1 = list("seal", reply, 1)
		}
		err = errors.Join(err, err1) // a partition that is away keeps nobody online in the others
		for _, u := range users {
			if name := text(u); name != "" {
				seats = append(seats, chat.Seat{User: name})
			}
		}
	}
	runs := s.seatRuns(seats)
	calls = calls[:0]
	for _, r := range runs {
		r.call = s.newLeaveCall(gateway, "dead", seats, r)
		calls = append(calls, r.call)
	}
	s.doAll(ctx, ephemeral, calls)
	for _, c := range calls {
		reply, err1 := c.result()
		n, _ := reply.(int64)
		swept += int(n)
		err = errors.Join(err, err1)
	}
	if err != nil {
		return swept, err // what is left is found again
	}
	return swept, s.forgetLease(ctx, gateway)
}

// HeldSeats implements chat.Seats.
func (s *Store) HeldSeats(ctx context.Context, gateway string, part, expected int) ([]string, error) {
	key := s.keys.seated(part, gateway)
	reply, err := s.do(ctx, reads, newCommand(part, "scard", key))
	if n, _ := reply.(int64); err != nil || int(n) <= expected {
		return nil, err
	}
	if reply, err = s.do(ctx, reads, newCommand(part, "smembers", key)); err != nil {
		return nil, err
	}
	members, err := list("smembers", reply, 0)
	users := make([]string, 0, len(members))
	for _, m := range members {
		if name := text(m); name != "" {
			users = append(users, name)
		}
	}
	return users, err
}

// ReadPresence implements chat.Seats.
func (s *Store) ReadPresence(ctx context.Context, users []string) ([]chat.UserPresence, []error) {
	calls := make([]*call, 0, 2*len(users))
	for _, u := range users {
		part := s.keys.partition(u)
		calls = append(calls,
			newCommand(part, "hgetall", s.keys.presence(part, u)),
			newCommand(part, "hget", s.keys.user(part, u).rooms, "seen"))
	}
	s.doAll(ctx, reads, calls)
	ps := make([]chat.UserPresence, len(users))
	var errs []error
	for i := range users {
		err := readPresence(&ps[i], users[i], calls[2*i], calls[2*i+1])
		if err != nil {
			if errs == nil {
				errs = make([]error, len(users))
			}
			errs[i] = err
		}
	}
	return ps, errs
}

func readPresence(p *chat.UserPresence, user string, seats, seen *call) error {
	reply, err := seats.result()
	if err != nil {
		return err
	}
	fields, err := list("hgetall", reply, 0)
	if err != nil {
		return err
	}
	p.Seats = make(map[string]chat.Seat, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		seat, err := parseSeat(user, text(fields[i+1]))
		if err != nil {
			return err
		}
		p.Seats[text(fields[i])] = seat
	}
	if reply, err = seen.result(); err != nil || reply == nil {
		return err
	}
	p.LastSeen, err = strconv.ParseInt(text(reply), 10, 64)
	return err
}

// appendSeat appends "seq connections room…". Rooms have no blanks.
func appendSeat(dst []byte, s *chat.Seat) []byte {
	dst = strconv.AppendUint(dst, s.Seq, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(s.Conns), 10)
	for _, r := range s.Focus {
		dst = append(dst, ' ')
		dst = append(dst, r...)
	}
	return dst
}

func parseSeat(user, value string) (seat chat.Seat, err error) {
	words := strings.Split(value, " ")
	if len(words) < 2 {
		return seat, fmt.Errorf("BUG: seat of %q is %.100q", user, value)
	}
	seat.User = user
	seq, err1 := strconv.ParseUint(words[0], 10, 64)
	conns, err2 := strconv.Atoi(words[1])
	seat.Seq, seat.Conns, seat.Focus = seq, conns, words[2:]
	return seat, errors.Join(err1, err2)
}

// Lookup implements chat.Live.
func (s *Store) Lookup(ctx context.Context, users []string) ([]chat.Presence, error) {
	if err := s.seeFleet(); err != nil {
		return nil, err
	}
	found, errs := s.ReadPresence(ctx, users)
	err := errors.Join(errs...)
	if err != nil {
		return nil, err
	}
	live := map[string]bool{} // gateways, judged once
	out := make([]chat.Presence, len(users))
	for i, p := range found {
		out[i].User = users[i]
		for _, gateway := range slices.Sorted(maps.Keys(p.Seats)) {
			is, judged := live[gateway]
			if !judged {
				if is, err = s.lives(gateway); err != nil {
					return nil, err
				}
				live[gateway] = is
			}
			if !is {
				continue
			}
			out[i].Online = true
			for _, r := range p.Seats[gateway].Focus {
				if !slices.Contains(out[i].Focus, r) {
					out[i].Focus = append(out[i].Focus, r)
				}
			}
		}
		if !out[i].Online {
			out[i].LastSeen = p.LastSeen
		}
	}
	return out, nil
}
