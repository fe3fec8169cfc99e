package logs

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// sinkBytes is how much waits for a slow reader: some thousand lines.
const sinkBytes = 1 << 20

// sink takes lines without ever waiting, and writes them in order.
type sink struct {
	out  io.Writer
	note func(lines uint64) []byte // the line that says how many were lost

	wake chan struct{} // something is to be written, or the end
	done chan struct{} // everything is written

	mu      sync.Mutex
	pending []byte // guarded by mu
	spare   []byte // guarded by mu
	missing uint64 // guarded by mu: lines lost and not yet told
	total   uint64 // guarded by mu: lines lost
	closed  bool   // guarded by mu
}

func newSink(out io.Writer, note func(uint64) []byte) *sink {
	s := &sink{out: out, note: note, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run() // ends with close
	return s
}

// Write takes one line. It never fails: there is nobody to tell.
func (s *sink) Write(line []byte) (int, error) {
	s.mu.Lock()
	if s.closed || len(s.pending)+len(line) > sinkBytes {
		s.missing++
		s.total++
	} else {
		s.pending = append(s.pending, line...)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return len(line), nil
}

func (s *sink) run() {
	defer close(s.done)
	var untold uint64 // lines lost that the log does not tell of yet
	for range s.wake {
		for {
			s.mu.Lock()
			chunk, missing, closed := s.pending, s.missing, s.closed
			s.pending, s.spare, s.missing = s.spare[:0], nil, 0
			s.mu.Unlock()
			if len(chunk) == 0 && missing == 0 {
				if closed {
					return
				}
				s.mu.Lock()
				s.spare = chunk
				s.mu.Unlock()
				break
			}
			untold += missing + s.write(chunk)
			if untold > 0 {
				if _, err := s.out.Write(s.note(untold)); err == nil {
					untold = 0
				} // else the log is gone, or its disk full: there is nowhere to say so
			}
			if cap(chunk) > sinkBytes/4 {
				chunk = nil // a flood's buffer is not kept
			}
			s.mu.Lock()
			s.spare = chunk[:0]
			s.mu.Unlock()
		}
	}
}

// write writes lines out and counts those that could not be.
func (s *sink) write(chunk []byte) (failed uint64) {
	n, err := s.out.Write(chunk)
	if err == nil {
		return 0
	}
	failed = uint64(bytes.Count(chunk[n:], []byte{'\n'}))
	s.mu.Lock()
	s.total += failed
	s.mu.Unlock()
	return failed
}

func (s *sink) lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (s *sink) close(timeout time.Duration) {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	select {
	case <-s.done:
	case <-time.After(timeout):
	}
}
