package fakechat

import "sync"

// outbox is what a connection has still to be told: as long as its client is slow,
// and nothing when it is not, since there is one for every poll.
type outbox struct {
	filled chan struct{} // has something once push was called after take

	mu     sync.Mutex
	events [][]byte
}

func newOutbox() *outbox { return &outbox{filled: make(chan struct{}, 1)} }

func (o *outbox) push(event []byte) {
	o.mu.Lock()
	o.events = append(o.events, event)
	o.mu.Unlock()
	select {
	case o.filled <- struct{}{}:
	default:
	}
}

// take returns what was pushed since it was last called.
func (o *outbox) take() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	events := o.events
	o.events = nil
	return events
}
