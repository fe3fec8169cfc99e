package swarm

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/reactor"
)

// Opcodes of RFC 6455 §5.2.
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

// Errors of a frame that no server may send us.
var (
	errMasked     = errors.New("frame: masked by the server")
	errReserved   = errors.New("frame: reserved bits without an extension")
	errFragmented = errors.New("frame: fragmented, which this tester does not read")
	errOpcode     = errors.New("frame: unknown opcode")
	errTooLarge   = errors.New("frame: larger than 1 MiB")
)

// cutFrame takes the first frame off b. size is 0 while the frame is not complete.
func cutFrame(b []byte) (op byte, payload []byte, size int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	op = b[0] & 15
	switch {
	case b[1]&0x80 != 0:
		return 0, nil, 0, errMasked
	case b[0]&0x70 != 0:
		return 0, nil, 0, errReserved
	case b[0]&0x80 == 0 || op == 0:
		return 0, nil, 0, errFragmented
	case op > opBinary && op < opClose || op > opPong:
		return 0, nil, 0, errOpcode
	}
	length, head := int(b[1]), 2
	switch length {
	case 126:
		if head = 4; len(b) < head {
			return 0, nil, 0, nil
		}
		length = int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if head = 10; len(b) < head {
			return 0, nil, 0, nil
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long > readBufBytes {
			return 0, nil, 0, errTooLarge
		}
		length = int(long)
	}
	if head+length > readBufBytes {
		return 0, nil, 0, errTooLarge
	}
	if len(b) < head+length {
		return 0, nil, 0, nil
	}
	return op, b[head : head+length], head + length, nil
}

// say sends a client's frame, masked as a client's must be.
func (s *Swarm) say(i uint32, op byte, payload []byte) {
	if len(payload) == 0 && op == opText {
		return
	}
	var head [14]byte
	head[0] = 0x80 | op
	n := 2
	switch {
	case len(payload) < 126:
		head[1] = 0x80 | byte(len(payload))
	case len(payload) < 1<<16:
		head[1] = 0x80 | 126
		binary.BigEndian.PutUint16(head[2:], uint16(len(payload)))
		n = 4
	default:
		head[1] = 0x80 | 127
		binary.BigEndian.PutUint64(head[2:], uint64(len(payload)))
		n = 10
	}
	mask := s.rng.Uint32() | 1
	binary.LittleEndian.PutUint32(head[n:], mask)
	n += 4
	frame := append(s.frame[:0], head[:n]...)
	frame = append(frame, payload...)
	for k := range frame[n:] {
		frame[n+k] ^= byte(mask >> (8 * (k & 3)))
	}
	s.frame = frame
	s.write(i, frame)
}

// write sends bytes on a client's socket; what it does not take now waits.
func (s *Swarm) write(i uint32, b []byte) {
	c := &s.clients[i]
	if c.fd < 0 {
		return
	}
	if rest, waits := s.pending[i]; waits {
		s.pending[i] = append(rest, b...)
		return
	}
	n, err := unix.Write(int(c.fd), b)
	if err != nil && err != unix.EAGAIN {
		return // the read side will tell what happened to the socket
	}
	n = max(n, 0)
	s.stats.BytesWritten += uint64(n)
	if n < len(b) {
		s.pending[i] = append([]byte(nil), b[n:]...)
		s.watch(i, reactor.In|reactor.Out)
	}
}

// handleWritable sends what was left.
func (s *Swarm) handleWritable(i uint32) {
	rest, waits := s.pending[i]
	if !waits {
		return
	}
	delete(s.pending, i)
	if !s.clients[i].stalled {
		s.watch(i, reactor.In)
	}
	s.write(i, rest)
}
