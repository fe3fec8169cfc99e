// Package autobahn plays the cases of the public Autobahn suite, by their
// numbers (1–7, 9, 10, 12, 13), against an echo over the gateway's own loops. It
// is our own client of raw frames and shares no code with what it judges, so that
// a mistake in ours is not one in both. It is stricter than it need be: what the
// public suite calls "non-strict" or leaves open fails here.
//
// `go test ./test/autobahn` plays all 517 cases, those with a thousand compressed
// messages with three; MADANG_TEST_FULL=1 plays them in full, and
// MADANG_ECHO=host:port plays them against another server.
package autobahn
