package loop

import (
	"bytes"
	"encoding/base64"
	"net/netip"

	"github.com/madang-chat/madang/gateway/deflate"
	"github.com/madang-chat/madang/protocol"
)

// request is what a request says that matters here. Its slices are parts of the
// head.
type request struct {
	route        route
	method       method
	host, origin []byte
	token        []byte // nil: none, or what can't be one
	tokens       int    // how many it has, such as can't be any included
	ticket       []byte // nil: none
	resume       bool
	compression  deflate.Params // the first offer that can be honoured
	otherConn    bool           // a Connection line of several does not name the upgrade

	// Of events and long polls.
	since   uint64 // the client has everything up to this time (Unix ms); 0: it does not say
	length  int64  // of the body
	json    bool   // that is what the body is
	expects bool   // an interim answer before it sends the body
	closes  bool   // it sends no other request
}

// headers that must, or must not, come.
type seenHeader uint16

const (
	seenHost seenHeader = 1 << iota
	seenUpgrade
	seenConnection
	seenKey
	seenVersion
	seenOrigin
	seenLength
	seenTransferEncoding
	seenType
	seenLastEventID
)

// once notes a header, and says whether it is the first of its name.
func (seen *seenHeader) once(h seenHeader) bool {
	first := *seen&h == 0
	*seen |= h
	return first
}

// parseRequest reads a head, which ends with CR LF CR LF. It is strict where
// leniency is how requests are smuggled past proxies: line ends, spaces,
// repetitions, bodies. It changes nothing and keeps nothing. anywhere: every path
// is a WebSocket's. What it has read is returned with a refusal, too.
func parseRequest(head []byte, anywhere bool) (request, *refusal) {
	var req request
	line, rest, bad := cutLine(head)
	if bad != nil {
		return req, bad
	}
	target, ok := req.readRequestLine(line)
	if !ok {
		return req, errRequestLine
	}
	if target, ok = req.readHost(target); !ok {
		return req, errURL
	}
	path, query, _ := bytes.Cut(target, []byte{'?'})
	if anywhere {
		path = []byte(Path)
	}
	// What is wrong with a request that a page may have made is told when its origin
	// is known: else the page could not read it.
	var later *refusal
	refuse := func(bad *refusal) bool {
		if later == nil {
			later = bad
		}
		return bad != nil && (req.route == routeNone || req.route == routeWS)
	}
	if refuse(req.findRoute(path)) || refuse(req.readQuery(query)) {
		return req, later
	}
	var seen seenHeader
	for {
		if line, rest, bad = cutLine(rest); bad != nil {
			return req, bad
		}
		if len(line) == 0 {
			break
		}
		if refuse(req.readHeader(line, &seen)) {
			return req, later
		}
	}
	switch {
	case later != nil:
		return req, later
	case seen&seenHost == 0 || len(req.host) == 0:
		return req, errHost
	case req.route != routeWS:
		return req, req.checkPlain(seen)
	case seen&seenUpgrade == 0:
		return req, errUpgrade
	case seen&seenConnection == 0:
		return req, errConnection
	case seen&seenVersion == 0:
		return req, errVersionCount
	case seen&seenKey == 0:
		return req, errKey
	}
	return req, nil
}

// cutLine takes a line that ends with CR LF and has no other CR, LF or NUL.
func cutLine(b []byte) (line, rest []byte, bad *refusal) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, errLineEnd
	}
	line = b[:i-1]
	if bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return nil, nil, errLineEnd
	}
	return line, b[i+1:], nil
}

// readRequestLine takes "<method> <target> HTTP/1.1" apart.
func (req *request) readRequestLine(line []byte) (target []byte, ok bool) {
	name, line, _ := bytes.Cut(line, []byte{' '})
	if req.method, ok = methodOf(name); !ok {
		return nil, false
	}
	target, ok = bytes.CutSuffix(line, []byte(" HTTP/1.1"))
	if !ok || len(target) == 0 {
		return nil, false
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f {
			return nil, false
		}
	}
	return target, true
}

// readHost takes the host off a target that is a whole URL, as if to a proxy. It goes
// before the Host header, which must be there all the same (RFC 9112 §3.2.2).
func (req *request) readHost(target []byte) (path []byte, ok bool) {
	scheme, rest, _ := bytes.Cut(target, []byte("://"))
	if !is(scheme, "http") && !is(scheme, "https") {
		return target, true // a path, as a rule
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	req.host = rest[:end]
	return rest[end:], isAuthority(req.host)
}

// readQuery looks for `resume`, and for tokens: what is in a URL ends up in logs
// and histories.
func (req *request) readQuery(query []byte) *refusal {
	for len(query) > 0 {
		var pair []byte
		pair, query, _ = bytes.Cut(query, []byte{'&'})
		name, value, _ := bytes.Cut(pair, []byte{'='})
		switch string(name) {
		case "resume":
			switch string(value) {
			case "", "1", "true":
				req.resume = true
			case "0", "false":
			default:
				return errQuery
			}
		case "ticket":
			if req.ticket != nil || !isToken(value) {
				return errQuery
			}
			req.ticket = value
		case "last_event_id": // of a page that makes a new EventSource, which can't set the header
			if req.route != routeEvents {
				break
			}
			if bad := req.readSince(value); bad != nil || len(value) == 0 {
				return errLastEventID
			}
		case "token", "access_token", "id_token", "jwt", "bearer", "authorization", "auth":
			return errTokenInQuery
		}
		if bytes.Contains(value, []byte("eyJ")) { // how every JWT's header begins
			return errTokenInQuery
		}
	}
	return nil
}

func (req *request) readHeader(line []byte, seen *seenHeader) *refusal {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 || !isToken(line[:colon]) {
		return errHeaderLine // also a folded line: it begins with a space
	}
	name, value := line[:colon], trim(line[colon+1:])
	for _, c := range value {
		if c < ' ' && c != '\t' || c == 0x7f {
			return errHeaderLine
		}
	}
	switch {
	case is(name, "host"):
		if !seen.once(seenHost) || !isHost(value) {
			return errHost
		}
		if req.host == nil { // else the URL has said it
			req.host = value
		}
	case is(name, "origin"):
		if !seen.once(seenOrigin) {
			return errOriginCount
		}
		req.origin = value
	case is(name, "authorization"):
		scheme, token, _ := bytes.Cut(value, []byte{' '})
		if !is(scheme, "bearer") {
			token = nil
		}
		req.addToken(trim(token))
	case req.route == routeWS:
		return req.readUpgradeHeader(name, value, seen)
	default:
		return req.readPlainHeader(name, value, seen)
	}
	return nil
}

// readUpgradeHeader reads the headers that matter to WebSockets, beside those that
// matter to all.
func (req *request) readUpgradeHeader(name, value []byte, seen *seenHeader) *refusal {
	switch {
	case is(name, "upgrade"):
		if !seen.once(seenUpgrade) || !is(value, "websocket") {
			return errUpgrade
		}
	case is(name, "connection"):
		switch namesUpgrade(value) {
		case listFound:
			*seen |= seenConnection
		case listDone: // another line may: together they are one list (RFC 9110, section 5.3)
			req.otherConn = true
		default:
			return errConnection
		}
	case is(name, "content-length"):
		if parseLength(value) != 0 {
			return errBody
		}
	case is(name, "transfer-encoding"):
		return errBody
	case is(name, "sec-websocket-key"):
		if !seen.once(seenKey) || !isKey(value) {
			return errKey
		}
	case is(name, "sec-websocket-version"):
		if !seen.once(seenVersion) {
			return errVersionCount
		}
		if string(value) != "13" {
			return errVersion
		}
	case is(name, "sec-websocket-protocol"):
		return req.readProtocols(value)
	case is(name, "sec-websocket-extensions"):
		params, ok := deflate.Choose(value)
		if !ok {
			return errExtensions
		}
		if !req.compression.Agreed() {
			req.compression = params
		}
	}
	return nil
}

func namesUpgrade(value []byte) listResult {
	return eachToken(value, func(t []byte) bool { return is(t, "upgrade") })
}

// forUpgrader is the head of an upgrade for the upgrader, which wants every Connection line
// to name it: without those that do not.
func (req *request) forUpgrader(head []byte) []byte {
	if !req.otherConn {
		return head
	}
	kept := make([]byte, 0, len(head))
	for line := range bytes.Lines(head) {
		name, value, _ := bytes.Cut(line, []byte{':'})
		if !is(name, "connection") || namesUpgrade(trim(bytes.TrimSuffix(value, []byte("\r\n")))) == listFound {
			kept = append(kept, line...)
		}
	}
	return kept
}

// readProtocols looks for the browser's way to hand over a token. Whether
// madang.v1 is among them is the upgrader's business: a client that offers only
// others gets a connection without a subprotocol, as RFC 6455 §4.2.2 has it, and
// will close it if it minds.
func (req *request) readProtocols(value []byte) *refusal {
	found := eachToken(value, func(t []byte) bool {
		if token, ok := bytes.CutPrefix(t, []byte(protocol.BearerPrefix)); ok {
			req.addToken(token)
		}
		return false
	})
	if found == listMalformed {
		return errProtocols
	}
	return nil
}

// addToken notes a token wherever it is. What is wrong with it, or with there being
// two, is told when all headers are read (judge): in whatever order they come.
func (req *request) addToken(token []byte) {
	req.tokens++
	if isTokenText(token) {
		req.token = token
	}
}

type listResult uint8

const (
	listDone listResult = iota
	listFound
	listMalformed
)

// eachToken calls f with the tokens of a comma-separated list until it says yes.
func eachToken(list []byte, f func([]byte) bool) listResult {
	any := false
	for more := true; more; {
		var t []byte
		t, list, more = bytes.Cut(list, []byte{','})
		t = trim(t)
		if len(t) == 0 {
			continue // RFC 9110 §5.6.1.2: empty elements are ignored
		}
		if !isToken(t) {
			return listMalformed
		}
		any = true
		if f(t) {
			return listFound
		}
	}
	if !any {
		return listMalformed
	}
	return listDone
}

// is compares ASCII without case; lower is lower case already.
func is(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		if lowerOf(b[i]) != lower[i] {
			return false
		}
	}
	return true
}

// same compares without the case of ASCII letters, and of these only: Unicode would
// have other letters be the same as k and s.
func same[T string | []byte](a []byte, b T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lowerOf(a[i]) != lowerOf(b[i]) {
			return false
		}
	}
	return true
}

func lowerOf(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// tokenChars are RFC 9110 §5.6.2's.
var tokenChars = func() (set [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		set[c] = true
	}
	return set
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenChars[c] {
			return false
		}
	}
	return len(b) > 0
}

// isTokenText says whether b may be a bearer token: RFC 6750's b64token.
func isTokenText(b []byte) bool {
	for _, c := range b {
		if !tokenChars[c] && c != '/' && c != '=' {
			return false
		}
	}
	return len(b) > 0
}

func isHost(b []byte) bool {
	for _, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.' || c == '-' || c == '_' || c == ':' || c == '[' || c == ']' || c == '%' || c == '~':
		default:
			return false
		}
	}
	return len(b) > 0
}

// isAuthority says whether b is a URL's host, with or without a port: stricter than
// isHost, as those are who take URLs apart. One with a user in it is an attempt to
// deceive (RFC 9110 §4.2.4).
func isAuthority(b []byte) bool {
	if len(b) > 0 && b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 {
			return false
		}
		addr, err := netip.ParseAddr(string(b[1:end]))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return false
		}
		return end+1 == len(b) || b[end+1] == ':' && allDigits(b[end+2:])
	}
	name, port, _ := bytes.Cut(b, []byte{':'})
	return isHost(name) && !bytes.ContainsAny(name, "[]%") && allDigits(port)
}

func allDigits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

var strictBase64 = base64.StdEncoding.Strict()

func isKey(b []byte) bool {
	var key [18]byte
	if len(b) != 24 {
		return false
	}
	n, err := strictBase64.Decode(key[:], b)
	return err == nil && n == 16
}

// originAllowed says whether a page of this origin may connect. Comparison is
// exact, letters' case aside: a look-alike, another port or scheme, and "null"
// are other origins.
func originAllowed(req *request, allowed []string) bool {
	if req.origin == nil {
		return true // not a browser
	}
	if len(allowed) == 0 {
		for _, scheme := range [...]string{"http://", "https://"} {
			if n := len(scheme); len(req.origin) == n+len(req.host) && is(req.origin[:n], scheme) {
				return same(req.origin[n:], req.host)
			}
		}
		return false
	}
	for _, a := range allowed {
		if a == "*" || same(req.origin, a) {
			return true
		}
	}
	return false
}
