// Package protocol is madang's wire contract: what clients send and receive,
// and the values both sides must agree on (message IDs, names, close codes,
// error codes, limits).
//
// Downward, a WebSocket text frame holds one JSON event, or several separated
// by '\n'. Every event has a "type". Upward, a client says "ping", "resume",
// "focus", "typing", "read", "delivered", "watch" and "auth"; messages never
// travel up the socket, they are sent over HTTP.
//
// A message event is
//
//	{"type":"message","room":R,"id":ID,"prev":ID,"n":N,<tail>
//
// where <tail> is what the API encoded when it accepted the send, from
// `"from":` to the closing brace. The send script puts the part before the tail
// in place, so the log stores (prev, n, tail), the publication carries the whole
// event, and a gateway forwards bytes without encoding anything again.
//
// The package does no I/O, reads no clock and imports nothing of madang.
package protocol
