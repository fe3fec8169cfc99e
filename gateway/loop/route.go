package loop

import (
	"bytes"

	"github.com/madang-chat/madang/protocol"
)

// What is served, by path and method. All three transports begin with a request
// that one parser reads; what differs is what must be in it and how it is answered.

// Paths.
const (
	Path       = "/v1/ws"     // WebSocket clients
	PathEvents = "/v1/events" // server-sent events
	PathPoll   = "/v1/poll"   // long poll
)

type route uint8

const (
	routeNone route = iota
	routeWS
	routeEvents
	routePoll
)

type method uint8

const (
	methodOther method = iota // known to HTTP, and served nowhere here
	methodHEAD                // likewise, and its answers have no body
	methodGET
	methodPOST
	methodOPTIONS
)

// methodOf knows HTTP's methods; anything else is no request.
func methodOf(name []byte) (m method, ok bool) {
	switch string(name) { // does not allocate
	case "GET":
		return methodGET, true
	case "POST":
		return methodPOST, true
	case "OPTIONS":
		return methodOPTIONS, true
	case "HEAD":
		return methodHEAD, true
	case "PUT", "PATCH", "DELETE", "TRACE", "CONNECT":
		return methodOther, true
	}
	return methodOther, false
}

var (
	// An upgrade is a GET by definition (RFC 6455 §4.1): anything else is no handshake,
	// like one that lacks a header.
	errMethodWS     = badRequest("a WebSocket is asked for with GET")
	errMethodEvents = &refusal{status: 405, outcome: UpgradeMethod, code: protocol.ErrMethod, detail: PathEvents + " takes GET and POST", header: "Allow: GET, POST, OPTIONS\r\n"}
	errMethodPoll   = &refusal{status: 405, outcome: UpgradeMethod, code: protocol.ErrMethod, detail: PathPoll + " takes POST", header: "Allow: POST, OPTIONS\r\n"}

	errLengths      = badRequest("malformed, repeated or contradictory lengths")
	errBodyGET      = badRequest("a GET request has no body")
	errLastEventID  = badRequest("Last-Event-ID is not a time that an event said")
	errNoLength     = &refusal{status: 411, outcome: UpgradeBadRequest, code: protocol.ErrMalformed, detail: "Content-Length is needed"}
	errBodyTooLarge = &refusal{status: 413, outcome: UpgradeTooLarge, code: protocol.ErrTooLarge, detail: "the body is too large"}
	errMediaType    = &refusal{status: 415, outcome: UpgradeBadRequest, code: protocol.ErrMediaType, detail: "Content-Type must be application/json"}
	errExpectation  = &refusal{status: 417, outcome: UpgradeBadRequest, code: protocol.ErrMalformed, detail: "nothing but 100-continue can be expected"}
)

// findRoute says what a request asks for.
func (req *request) findRoute(path []byte) *refusal {
	switch string(path) {
	case Path:
		req.route = routeWS
		if req.method != methodGET {
			return errMethodWS
		}
	case PathEvents:
		req.route = routeEvents
		if req.method == methodOther || req.method == methodHEAD {
			return errMethodEvents
		}
	case PathPoll:
		req.route = routePoll
		if req.method != methodPOST && req.method != methodOPTIONS {
			return errMethodPoll
		}
	default:
		return errNotFound
	}
	return nil
}

// readPlainHeader reads the headers that matter to events and long polls, beside
// those that matter to all.
func (req *request) readPlainHeader(name, value []byte, seen *seenHeader) *refusal {
	switch {
	case is(name, "connection"):
		if eachToken(value, func(t []byte) bool { return is(t, "close") }) == listFound {
			req.closes = true
		}
	case is(name, "content-length"):
		if req.length = parseLength(value); req.length < 0 || !seen.once(seenLength) {
			return errLengths
		}
	case is(name, "transfer-encoding"):
		*seen |= seenTransferEncoding
	case is(name, "content-type"):
		if !seen.once(seenType) {
			return errMediaType
		}
		mediaType, _, _ := bytes.Cut(value, []byte{';'})
		req.json = is(trim(mediaType), "application/json")
	case is(name, "expect"):
		if !is(value, "100-continue") {
			return errExpectation
		}
		req.expects = true
	case is(name, "last-event-id"):
		if !seen.once(seenLastEventID) {
			return errLastEventID
		}
		if len(value) > 0 { // over what the URL says, which is older: a page put it there
			return req.readSince(value)
		}
	}
	return nil
}

// mostSince bounds a time that a client says it has (Unix ms): the year 9999.
const mostSince = 253402300799999

func (req *request) readSince(value []byte) *refusal {
	ms := parseLength(value)
	if ms < 0 || ms > mostSince || value[0] == '0' && ms != 0 {
		return errLastEventID
	}
	req.since = max(1, uint64(ms)) // 0 is before everything, too, and does not mean "none"
	return nil
}

// parseLength reads decimal digits; -1: it is something else.
func parseLength(b []byte) int64 {
	if len(b) == 0 || len(b) > 15 {
		return -1
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

// checkPlain is what must hold of a request for events or a long poll once all of
// its head is read.
func (req *request) checkPlain(seen seenHeader) *refusal {
	chunked := seen&seenTransferEncoding != 0
	switch {
	case chunked && seen&seenLength != 0:
		return errLengths // RFC 9112 §6.1: how requests are smuggled
	case req.method != methodPOST && (chunked || req.length > 0):
		return errBodyGET
	case req.method != methodPOST:
		return nil
	case chunked, seen&seenLength == 0:
		return errNoLength
	case !req.json:
		return errMediaType
	}
	return nil
}

// hasBody says that a request's body is to be collected.
func (req *request) hasBody() bool { return req.method == methodPOST }

// readableBy is the origin whose pages may read the answer, nil for none. Tokens
// are in no cookie, so nothing else depends on it.
func (g *Group) readableBy(req *request) []byte {
	if req.route == routeNone || req.route == routeWS || req.origin == nil || !originAllowed(req, g.opts.Origins) {
		return nil
	}
	return req.origin
}

func appendCORS(dst, origin []byte) []byte {
	if origin == nil {
		return dst
	}
	dst = append(dst, "Access-Control-Allow-Origin: "...)
	dst = append(dst, origin...)
	return append(dst, "\r\nVary: Origin\r\n"...)
}

// appendPreflight answers a browser that asks whether a page may ask. The
// connection ends: the browser remembers the answer for as long as it will.
func appendPreflight(dst []byte, req *request, origin []byte) []byte {
	allow := "GET, POST, OPTIONS"
	if req.route == routePoll {
		allow = "POST, OPTIONS"
	}
	dst = append(dst, "HTTP/1.1 204 No Content\r\nAllow: "...)
	dst = append(dst, allow...)
	dst = append(dst, "\r\nConnection: close\r\n"...)
	if origin != nil {
		dst = append(dst, "Access-Control-Allow-Methods: "...)
		dst = append(dst, allow...)
		dst = append(dst, "\r\nAccess-Control-Allow-Headers: Authorization, Content-Type, Last-Event-ID, Traceparent, Tracestate\r\nAccess-Control-Max-Age: 86400\r\n"...)
		dst = appendCORS(dst, origin)
	}
	return append(dst, "\r\n"...)
}
