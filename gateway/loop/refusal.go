package loop

import (
	"strconv"

	"github.com/madang-chat/madang/protocol"
)

// refusal is an answer to a request that is not upgraded.
type refusal struct {
	status  int
	outcome UpgradeOutcome
	code    protocol.ErrorCode
	detail  string
	header  string // a further header line
}

func (r *refusal) Error() string { return r.detail }

func badRequest(detail string) *refusal {
	return &refusal{status: 400, outcome: UpgradeBadRequest, code: protocol.ErrMalformed, detail: detail}
}

// Refusals are made once: refusing a flood should cost little. Only why a token is not
// valid is in one made for it (verify): to look at the token costs more.
var (
	errRequestLine   = badRequest("not a request of HTTP/1.1")
	errProxyRefused  = badRequest("not a request of HTTP/1.1 (a PROXY protocol header? It is taken from the networks of --proxy-protocol-from only)")
	errURL           = badRequest("malformed host in the request's URL")
	errLineEnd       = badRequest("lines end with CR LF")
	errHeaderLine    = badRequest("malformed header")
	errHost          = badRequest("exactly one Host header is needed")
	errUpgrade       = badRequest("exactly one Upgrade: websocket header is needed")
	errConnection    = badRequest("Connection: Upgrade is needed")
	errKey           = badRequest("exactly one Sec-WebSocket-Key header of 16 bytes in base64 is needed")
	errVersionCount  = badRequest("exactly one Sec-WebSocket-Version header is needed")
	errProtocols     = badRequest("malformed Sec-WebSocket-Protocol header")
	errExtensions    = badRequest("malformed Sec-WebSocket-Extensions header")
	errBody          = badRequest("an upgrade request has no body")
	errOriginCount   = badRequest("more than one Origin header")
	errAuthorization = badRequest("more than one token or ticket")
	errQuery         = badRequest("malformed query")
	errTokenInQuery  = badRequest("a token does not belong into a URL: use Authorization or the subprotocol " + protocol.BearerPrefix + "<token>")

	errNotFound = &refusal{status: 404, outcome: UpgradeNotFound, code: protocol.ErrNotFound, detail: "only " + Path + ", " + PathEvents + " and " + PathPoll + " are served here"}
	errVersion  = &refusal{status: 426, outcome: UpgradeVersion, code: protocol.ErrMalformed, detail: "only version 13 of the WebSocket protocol is spoken",
		header: "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n"}
	errHeadTooLarge = &refusal{status: 431, outcome: UpgradeTooLarge, code: protocol.ErrTooLarge, detail: "the request's head is too large"}
	errNoToken      = &refusal{status: 401, outcome: UpgradeUnauthorized, code: protocol.ErrUnauthorized, detail: "a token is needed", header: challenge}
	errNoBearer     = &refusal{status: 401, outcome: UpgradeUnauthorized, code: protocol.ErrUnauthorized, detail: "a token comes as Authorization: Bearer <token>, or as the subprotocol " + protocol.BearerPrefix + "<token>", header: challenge}
	errBadToken     = &refusal{status: 401, outcome: UpgradeUnauthorized, code: protocol.ErrUnauthorized, detail: "the token is not valid", header: challenge}
	errOldToken     = &refusal{status: 401, outcome: UpgradeUnauthorized, code: protocol.ErrTokenExpired, detail: "the token has expired", header: challenge}
	errServerKey    = &refusal{status: 403, outcome: UpgradeForbidden, code: protocol.ErrForbidden, detail: "a server key has no socket: connect with a user's token"}
	errOrigin       = &refusal{status: 403, outcome: UpgradeForbidden, code: protocol.ErrForbidden, detail: "pages of this origin may not connect"}
	errDraining     = &refusal{status: 503, outcome: UpgradeUnavailable, code: protocol.ErrUnavailable, detail: "this gateway is about to end: connect to another", header: "Retry-After: 1\r\n"}
	errFull         = &refusal{status: 503, outcome: UpgradeUnavailable, code: protocol.ErrUnavailable, detail: "no more connections are taken right now"}
)

const challenge = "WWW-Authenticate: Bearer\r\n"

var statusTexts = map[int]string{
	400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
	408: "Request Timeout", 411: "Length Required", 413: "Content Too Large", 415: "Unsupported Media Type",
	417: "Expectation Failed", 426: "Upgrade Required",
	429: "Too Many Requests", 431: "Request Header Fields Too Large", 503: "Service Unavailable",
}

// appendRefusal appends the answer: a small problem+json that pages of the origin
// may read, and the end of the connection.
func appendRefusal(dst []byte, r *refusal, origin []byte) []byte {
	text := statusTexts[r.status]
	var scratch [512]byte
	body := append(scratch[:0], `{"type":"about:blank","title":`...)
	body = protocol.AppendString(body, text)
	body = append(body, `,"status":`...)
	body = strconv.AppendInt(body, int64(r.status), 10)
	body = append(body, `,"code":`...)
	body = protocol.AppendString(body, string(r.code))
	body = append(body, `,"detail":`...)
	body = protocol.AppendString(body, r.detail)
	body = append(body, '}', '\n')

	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.status), 10)
	dst = append(dst, ' ')
	dst = append(dst, text...)
	dst = append(dst, "\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\nConnection: close\r\n"...)
	dst = append(dst, r.header...)
	if dst = appendCORS(dst, origin); origin != nil {
		dst = append(dst, "Access-Control-Expose-Headers: Retry-After\r\n"...)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, body...)
}
