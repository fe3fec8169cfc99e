package redisstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// pushKind is what a subscriber connection says.
type pushKind uint8

const (
	pushMessage     pushKind = iota + 1
	pushSubscribe            // confirmed
	pushUnsubscribe          // confirmed, or by the server's own will
	pushOther                // an answer without meaning here
)

// maxPushBytes bounds what a publication may be: beyond it the stream is taken
// for broken, before anything is allocated.
const maxPushBytes = 16 << 20

var errProtocol = errors.New("redis said something that is no push message")

// pushReader reads a subscriber connection in RESP2. It allocates what it hands
// over, the payload, and nothing else; go-redis's reader takes nine allocations
// per message, and its PubSub reconnects behind one's back.
type pushReader struct {
	r       *bufio.Reader
	channel []byte // of the last push; valid until the next
}

func newPushReader(r io.Reader) *pushReader {
	return &pushReader{r: bufio.NewReaderSize(r, 32<<10)}
}

// next reads one push. payload is set for a message and belongs to the caller.
// An error that Redis answers is an error here too: nothing that is asked of a
// subscriber connection may fail unnoticed.
func (p *pushReader) next() (kind pushKind, payload []byte, err error) {
	line, err := p.line()
	if err != nil {
		return 0, nil, err
	}
	switch line[0] {
	case '+':
		return pushOther, nil, nil
	case '-':
		return 0, nil, fmt.Errorf("redis: %s", line[1:])
	case '*':
	default:
		return 0, nil, errProtocol
	}
	if n, err := strconv.Atoi(string(line[1:])); err != nil || n != 3 {
		if err == nil && n == 2 { // a pong: two bulk strings
			_, err1 := p.bulk(nil)
			_, err2 := p.bulk(nil)
			return pushOther, nil, errors.Join(err1, err2)
		}
		return 0, nil, errProtocol
	}
	if p.channel, err = p.bulk(p.channel[:0]); err != nil {
		return 0, nil, err
	}
	switch string(p.channel) {
	case "message", "smessage":
		kind = pushMessage
	case "subscribe", "ssubscribe":
		kind = pushSubscribe
	case "unsubscribe", "sunsubscribe":
		kind = pushUnsubscribe
	default:
		return 0, nil, errProtocol
	}
	if p.channel, err = p.bulk(p.channel[:0]); err != nil {
		return 0, nil, err
	}
	if kind == pushMessage {
		payload, err = p.bulk(nil)
		return kind, payload, err
	}
	if line, err = p.line(); err == nil && line[0] != ':' {
		err = errProtocol
	}
	return kind, nil, err
}

// line reads a line without its end; valid until the next read.
func (p *pushReader) line() ([]byte, error) {
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, errProtocol
	}
	return line[:len(line)-2], nil
}

// bulk reads a bulk string into dst, or into memory of its own size when dst is
// nil.
func (p *pushReader) bulk(dst []byte) ([]byte, error) {
	line, err := p.line()
	if err != nil {
		return nil, err
	}
	if line[0] != '$' {
		return nil, errProtocol
	}
	n := 0
	for _, c := range line[1:] {
		if c < '0' || c > '9' || n > maxPushBytes {
			if string(line) == "$-1" { // the channel of an unsubscribe from nothing
				return dst, nil
			}
			return nil, errProtocol
		}
		n = n*10 + int(c-'0')
	}
	if n > maxPushBytes {
		return nil, errProtocol
	}
	if cap(dst) < n {
		dst = make([]byte, n)
	}
	dst = dst[:n]
	if _, err := io.ReadFull(p.r, dst); err != nil {
		return nil, err
	}
	_, err = p.r.Discard(2)
	return dst, err
}

// appendCommand appends a command in RESP.
func appendCommand(dst []byte, name string, args ...string) []byte {
	dst = append(dst, '*')
	dst = strconv.AppendInt(dst, int64(1+len(args)), 10)
	dst = append(dst, "\r\n"...)
	dst = appendBulk(dst, name)
	for _, a := range args {
		dst = appendBulk(dst, a)
	}
	return dst
}

func appendBulk(dst []byte, s string) []byte {
	dst = append(dst, '$')
	dst = strconv.AppendInt(dst, int64(len(s)), 10)
	dst = append(dst, "\r\n"...)
	dst = append(dst, s...)
	return append(dst, "\r\n"...)
}
