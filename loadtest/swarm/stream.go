package swarm

import (
	"bytes"

	"github.com/madang-chat/madang/loadtest/answer"
	"github.com/madang-chat/madang/loadtest/target"
)

// eventStream is an answer that does not end (WHATWG HTML §9.2). A client that
// comes back hands over its positions, as one on a WebSocket does.
type eventStream struct {
	*Swarm
	http target.OverHTTP
}

func (eventStream) opens() string { return "stream" }

func (s eventStream) begin(i uint32) {
	o := s.opening(i)
	var positions []target.Position
	if o.Resume {
		positions = s.resumeFrom(i)
	}
	s.out = s.http.AppendStream(s.out[:0], o, positions)
	s.stats.Requests++
	s.write(i, s.out)
}

func (s eventStream) take(i uint32, data []byte) []byte {
	c := &s.clients[i]
	if c.state == upgrading {
		if data = s.handleAnswer(i, data); c.fd < 0 {
			return nil
		}
	}
	for c.state >= greeting {
		payload, size := s.cutEvent(data)
		if size == 0 {
			break
		}
		data = data[size:]
		if len(payload) == 0 {
			continue // a heartbeat, or the time to stay away, which the bye has told
		}
		s.stats.Frames++
		if s.handlePayload(i, payload); c.fd < 0 {
			return nil
		}
	}
	return data
}

// handleAnswer reads the head of the stream and returns what follows it.
func (s eventStream) handleAnswer(i uint32, data []byte) []byte {
	h, size, err := answer.CutHead(data)
	switch {
	case err != nil:
		s.fail(i, failure("stream", err))
		return nil
	case size == 0:
		return data
	case h.Status != 200:
		s.refused(i, &h)
		return nil
	case h.Chunked || h.Length >= 0 || !bytes.HasPrefix(h.Value("content-type"), []byte("text/event-stream")):
		s.fail(i, "stream: the answer is no event stream that ends with its connection")
		return nil
	}
	s.clients[i].state = greeting
	return data[size:]
}

func (eventStream) ended(uint32) (string, bool) { return "the server ended the stream", true }

func (s eventStream) due(i uint32) { s.listen(i) }

// cutEvent takes the first event off a stream: its data, which is empty for a
// comment, and how long it was. size is 0 while it is not complete. Data of
// several lines is put together in the swarm's scratch.
func (s *Swarm) cutEvent(b []byte) (data []byte, size int) {
	lines := 0
	for {
		line, n := cutLine(b[size:])
		if n == 0 {
			return nil, 0
		}
		if size += n; len(line) == 0 {
			return data, size
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(name) != "data" {
			continue
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		if lines++; lines == 1 {
			data = value
			continue
		}
		if lines == 2 {
			s.frame = append(s.frame[:0], data...)
		}
		s.frame = append(append(s.frame, '\n'), value...)
		data = s.frame
	}
}

// cutLine takes a line off b, which ends with CR LF, LF or CR. size is 0 while it
// is not complete. A CR at the end of what is there ends the line: should an LF
// follow, it is a line without anything, which means nothing where an event has
// just ended, and elsewhere b comes again from the event's beginning.
func cutLine(b []byte) (line []byte, size int) {
	end := bytes.IndexByte(b, '\n')
	if at := bytes.IndexByte(b[:max(end, 0)], '\r'); end >= 0 && at >= 0 {
		end = at
	} else if end < 0 {
		if end = bytes.IndexByte(b, '\r'); end < 0 {
			return nil, 0
		}
	}
	size = end + 1
	if b[end] == '\r' && size < len(b) && b[size] == '\n' {
		size++
	}
	return b[:end], size
}
