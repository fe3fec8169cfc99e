package protocol

// CloseCode is a WebSocket close code: RFC 6455 §7.4.1 and madang's own from
// the private range.
type CloseCode uint16

// Close codes a gateway uses. A client reconnects and resumes after all of
// them except CloseForbidden, after CloseTokenExpired only with a new token, and
// after CloseTooMany not before a minute or so.
const (
	CloseNormal        CloseCode = 1000
	CloseGoingAway     CloseCode = 1001
	CloseProtocolError CloseCode = 1002
	CloseUnsupported   CloseCode = 1003
	CloseBadUTF8       CloseCode = 1007
	CloseMalformed     CloseCode = 1008 // an upward message that is malformed or unknown
	CloseTooLarge      CloseCode = 1009
	CloseInternal      CloseCode = 1011
	CloseTryLater      CloseCode = 1013
	CloseTokenExpired  CloseCode = 4001 // or revoked
	CloseForbidden     CloseCode = 4003
	CloseTooSlow       CloseCode = 4008 // resume
	CloseTooMany       CloseCode = 4009 // too many connections
	CloseDraining      CloseCode = 4012 // or rebalancing: resume elsewhere
	CloseRateLimit     CloseCode = 4029
)

// ErrorCode is the stable, machine-readable "code" of an `error` event and of a
// problem+json answer.
type ErrorCode string

// Error codes. Their HTTP status is the API's business (api/problem.go).
const (
	ErrMalformed     ErrorCode = "malformed"             // not JSON, wrong types, unknown field or type
	ErrInvalid       ErrorCode = "invalid"               // well formed, but a value is not allowed: a text too long, say
	ErrTooLarge      ErrorCode = "too_large"             // body, file, frame
	ErrUnauthorized  ErrorCode = "unauthorized"          // no or bad credentials
	ErrTokenExpired  ErrorCode = "token_expired"         // or revoked
	ErrForbidden     ErrorCode = "forbidden"             // not a member, or not the role it takes
	ErrRoomNotFound  ErrorCode = "room_not_found"        //
	ErrNotFound      ErrorCode = "not_found"             // route, member
	ErrRoomExists    ErrorCode = "room_exists"           //
	ErrKeyReused     ErrorCode = "idempotency_key_reuse" // same key, another body
	ErrRateLimited   ErrorCode = "rate_limited"          //
	ErrRoomBusy      ErrorCode = "room_busy"             // the room's readers have fallen behind
	ErrRoomFull      ErrorCode = "room_full"             // members per room
	ErrTooManyRooms  ErrorCode = "too_many_rooms"        // rooms per user
	ErrUnavailable   ErrorCode = "unavailable"           // Redis does not answer: retry
	ErrNotReplicated ErrorCode = "not_replicated"        // stored, but not yet on enough replicas: retry with the same key
	ErrStorageFull   ErrorCode = "storage_full"          // Redis refuses writes for lack of memory
	// Attachments.
	ErrNoAttachment    ErrorCode = "attachment_not_found"     // never uploaded, or expired
	ErrAttachmentsOff  ErrorCode = "attachments_off"          // this deployment takes none
	ErrAttachmentRooms ErrorCode = "attachment_in_most_rooms" // it was sent to as many as one may be
	ErrFileType        ErrorCode = "file_type_not_allowed"    //
	ErrQuota           ErrorCode = "upload_quota_exceeded"    // retry when Retry-After says
	ErrRange           ErrorCode = "range_not_satisfiable"    // it begins behind the file's end

	ErrMethod    ErrorCode = "method_not_allowed" //
	ErrMediaType ErrorCode = "unsupported_media_type"
	ErrInternal  ErrorCode = "internal" // the log has the request ID
)
