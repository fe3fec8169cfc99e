package chat

import (
	"context"
	"time"
)

// Trip is the round trip that carried a call to Redis and its answer back, among
// others'.
type Trip struct {
	WentOut, CameBack time.Time
}

type tripKey struct{}

// WithTrip has a Store's Send write its round trip to t: the last one, if it took
// several. t is to be read when Send returned without an error, and not otherwise:
// an abandoned call may still be on its way.
func WithTrip(ctx context.Context, t *Trip) context.Context {
	return context.WithValue(ctx, tripKey{}, t)
}

// TripOf is what WithTrip put into ctx, nil when nobody asks.
func TripOf(ctx context.Context) *Trip {
	t, _ := ctx.Value(tripKey{}).(*Trip)
	return t
}
