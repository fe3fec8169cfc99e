package testkit

import (
	"strings"
	"sync"
)

// Log is what a process or a logger has said: many may write it, and it may be read
// meanwhile. Its zero value is an empty one.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
