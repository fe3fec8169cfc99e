package swarm

import (
	"slices"
	"strings"
	"testing"
)

var streams = []string{
	":\n\n", "data: x\n\n", "id: 5\ndata: {\"type\":\"message\"}\n\n", "data: a\ndata: b\n\ndata:c\r\n\r\n", "data\n\n", "data: x\r\rdata: y\r\r",
	"data: x\n\r\ndata: y\r\n\n", "retry: 50\n\n", "event: e\ndata:  two blanks\n\n", "data: never ends\n", "\n\n\n", "\r\n\r", "datax: 1\n\n", "data: a\rdata: b\n\r",
}

// FuzzStream: however a stream is cut into reads, its events are those that the
// standard's rules, read literally, make of the whole.
func FuzzStream(f *testing.F) {
	for _, text := range streams {
		f.Add([]byte(text), uint64(1))
		f.Add([]byte(text), ^uint64(0))
	}
	f.Fuzz(func(t *testing.T, text []byte, cuts uint64) {
		want := literally(string(text))
		s := &Swarm{}
		var got []string
		var have []byte
		for i, c := range text {
			have = append(have, c)
			if cuts>>(i%64)&1 == 0 && i < len(text)-1 {
				continue
			}
			for {
				data, size := s.cutEvent(have)
				if size == 0 {
					break
				}
				if size > len(have) {
					t.Fatalf("%d of %d bytes", size, len(have))
				}
				if len(data) > 0 {
					got = append(got, string(data))
				}
				have = have[size:]
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// literally reads a stream as WHATWG HTML §9.2.6 says it, line by line.
func literally(text string) (events []string) {
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	end := strings.LastIndexByte(text, '\n')
	if end < 0 {
		return nil
	}
	data := ""
	for _, line := range strings.Split(text[:end], "\n") {
		if line == "" {
			if data = strings.TrimSuffix(data, "\n"); data != "" {
				events = append(events, data)
			}
			data = ""
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if name == "data" {
			data += strings.TrimPrefix(value, " ") + "\n"
		}
	}
	return events
}
