package loadtest

import (
	"fmt"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
	"github.com/madang-chat/madang/loadtest/swarm"
)

// What a believable hour of chat looks like, in short: rooms of many sizes
// (Zipf), sends at random times and more of them in larger rooms, people who
// type, look and read, now and then a picture (uploads.go), a lull and a burst, and some who lose their network.
const (
	burstFactor = 3    // a burst's sends, over the lull's
	burstShare  = 0.25 // of a round
	churnShare  = 0.05 // of the clients, per round
	churnSpread = 3 * time.Second
	chatRounds  = 3
)

// chatter is per client and second: a look at another room every 20 s, a line
// read every 10, typing for every other message of a talkative user.
var chatter = swarm.Chatter{Typing: 0.05, Focus: 0.05, Read: 0.1}

// chat is the mix.
func chat(r *run) error {
	if err := r.ramp(); err != nil {
		return err
	}
	if err := r.crew.All(crew.Order{Verb: crew.Chat, Chatter: chatter}); err != nil {
		return err
	}
	burst := time.Duration(float64(r.spec.Duration) * burstShare)
	for n := range chatRounds {
		err := r.phase(fmt.Sprintf("lull %d", n+1), func() error {
			if err := r.beginSends(r.spec.Rate); err != nil {
				return err
			}
			return r.rest(r.spec.Duration - burst)
		})
		if err != nil {
			return err
		}
		err = r.phase(fmt.Sprintf("burst %d", n+1), func() error {
			if err := r.beginSends(r.spec.Rate * burstFactor); err != nil {
				return err
			}
			return r.rest(burst)
		})
		if err != nil {
			return err
		}
		if err := r.crew.All(crew.Order{Verb: crew.Drop, Share: churnShare, Spread: churnSpread}); err != nil {
			return err
		}
	}
	return r.phase("the network is back", func() error { return r.rest(churnSpread + time.Second) })
}
