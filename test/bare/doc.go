// Package bare measures what a message costs when nothing of ours is on its way: Gin
// with a handler that reads the body, go-redis with a script of an XADD and a PUBLISH,
// Redis, and a thread that writes the publication to ten sockets. No tokens, no members,
// no idempotency, no order, no WebSocket. What the same load costs with all that is to
// be compared with it, measured in the same minute:
//
//	go test ./test/bare -run '^$' -bench . -benchtime 1x
package bare
