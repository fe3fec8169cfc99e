package redisstore

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/madang-chat/madang/internal/chat"
)

// ErrSchema says that Redis was set up by something that disagrees with this
// process about where data is. errors.As with *SchemaError tells what it found.
var ErrSchema = errors.New("redis holds another schema")

// SchemaError is an ErrSchema with its reason.
type SchemaError struct {
	StoredVersion, StoredPartitions string
	Version, Partitions             int
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("%v: stored are version %s and %s partitions, this process has version %d and %d partitions",
		ErrSchema, e.StoredVersion, e.StoredPartitions, e.Version, e.Partitions)
}

// Is makes errors.Is(err, ErrSchema) true.
func (e *SchemaError) Is(target error) bool { return target == ErrSchema }

var (
	errClosed   = fmt.Errorf("%w: the store is closed", chat.ErrUnavailable)
	errOverflow = fmt.Errorf("%w: too many commands wait for it", chat.ErrUnavailable)
	errDeadline = fmt.Errorf("%w in time", chat.ErrUnavailable)
	errNotLetIn = fmt.Errorf("%w: it does not let us in", chat.ErrUnavailable)
)

// outcome is what a failed command means for the one who sent it.
type outcome uint8

const (
	failed      outcome = iota // our own mistake, or one nobody foresaw
	moved                      // not run: another node, or this one in a moment
	unreachable                // not run: no connection
	broken                     // may have run: the connection broke or timed out
	full                       // not run: Redis refuses writes
	noScript                   // not run: to be loaded first
)

var outcomeNames = [...]string{"error", "moved", "unreachable", "network", "full", "noscript"}

func (o outcome) String() string { return outcomeNames[o] }

// classify sorts an error of go-redis. What Redis itself answered is known by
// its first word, which scripts pass on unchanged.
func classify(err error) outcome {
	if errors.Is(err, errNotLetIn) {
		return unreachable // whatever Redis said
	}
	if redisErr := redis.Error(nil); errors.As(err, &redisErr) {
		switch firstWord(redisErr) {
		case "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN", "BUSY", "UNBLOCKED":
			return moved
		case "NOREPLICAS":
			return moved // a primary that must not write alone, or one that lost its role
		case "NOSCRIPT":
			return noScript
		case "OOM", "MISCONF":
			return full
		}
		return failed
	}
	// The client that was asked belonged to a node that has left the Cluster, or
	// all connections are taken: nothing was sent.
	if errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) {
		return unreachable
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		return unreachable
	}
	return broken
}

func firstWord(err redis.Error) string {
	word, _, _ := strings.Cut(err.Error(), " ")
	return word
}

// onTheMove says whether a slot's primary refused because it is giving the slot away.
func onTheMove(err error) bool { return isAsk(err) || refusedWith(err, "TRYAGAIN") }

// isAsk says whether it refused because it does not have the keys, and the slot's next owner may.
func isAsk(err error) bool { return refusedWith(err, "ASK") }

func refusedWith(err error, word string) bool {
	redisErr := redis.Error(nil)
	return errors.As(err, &redisErr) && firstWord(redisErr) == word
}

// forCaller turns a command's error into one of chat's.
func forCaller(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, chat.ErrUnavailable), errors.Is(err, chat.ErrStorageFull), errors.Is(err, chat.ErrNotReplicated):
		return err
	}
	switch classify(err) {
	case full:
		return fmt.Errorf("%w (%w)", chat.ErrStorageFull, err)
	case moved, unreachable, broken:
		return fmt.Errorf("%w (%w)", chat.ErrUnavailable, err)
	}
	return fmt.Errorf("redis: %w", err)
}

// answers are the words by which scripts refuse.
var answers = map[string]error{
	"NOROOM":     chat.ErrNoRoom,
	"EXISTS":     chat.ErrRoomExists,
	"NOTMEMBER":  chat.ErrNotMember,
	"NOTALLOWED": chat.ErrNotAllowed,
	"NOMEMBER":   chat.ErrNoMember,
	"REUSED":     chat.ErrKeyReused,
	"FULL":       chat.ErrRoomFull,
	"TOOMANY":    chat.ErrTooMany,
	"LIMITED":    chat.ErrLimited,

	"NOATTACHMENT": chat.ErrNoAttachment,
	"MOSTROOMS":    chat.ErrAttachmentRooms,
}

// refusal is the error for a script's answer, nil when it is not a refusal.
func refusal(reply any) error {
	if word, ok := reply.(string); ok {
		return answers[word]
	}
	return nil
}

// errReply says that a script's answer has another shape than its contract.
func errReply(what string, reply any) error {
	return fmt.Errorf("BUG: %s answered %T %.100v", what, reply, reply)
}

func (e *SchemaError) fits() bool {
	return e.StoredVersion == strconv.Itoa(e.Version) && e.StoredPartitions == strconv.Itoa(e.Partitions)
}
