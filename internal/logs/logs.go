package logs

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/lmittmann/tint"
)

// Options say how lines look and where they go.
type Options struct {
	Out   io.Writer
	Level string // debug, info, warn, error; anything else is info
	JSON  bool   // for machines; otherwise for people
	Color bool
}

// Log is one process's log.
type Log struct {
	level slog.LevelVar
	sink  *sink
	flood *flood
}

// New makes a log and starts the goroutine that writes it; Close ends it.
func New(o Options) *Log {
	l := &Log{}
	_ = l.SetLevel(o.Level) // what is not understood leaves info
	var handler slog.Handler
	newHandler := func(w io.Writer) slog.Handler {
		if o.JSON {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: &l.level, ReplaceAttr: readable})
		}
		return tint.NewTextHandler(w, &tint.Options{Level: &l.level, TimeFormat: time.TimeOnly, NoColor: !o.Color})
	}
	l.sink = newSink(o.Out, func(lines uint64) []byte {
		var b strings.Builder
		slog.New(newHandler(&b)).Warn("the log was not read fast enough", "lines_lost", lines)
		return []byte(b.String())
	})
	handler = newHandler(l.sink)
	l.flood = newFlood(handler)
	return l
}

// readable writes durations as people do; slog writes nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Logger writes to the log.
func (l *Log) Logger() *slog.Logger { return slog.New(&logHandler{l.flood, l}) }

// logHandler lets From find the Log of a logger.
type logHandler struct {
	slog.Handler
	log *Log
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return &logHandler{h.Handler.WithAttrs(a), h.log}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	return &logHandler{h.Handler.WithGroup(name), h.log}
}

// From is the Log that a logger writes to; nil when it is another's.
func From(logger *slog.Logger) *Log {
	if h, ok := logger.Handler().(*logHandler); ok {
		return h.log
	}
	return nil
}

// SetLevel changes the least severe level that is logged: debug, info, warn,
// error.
func (l *Log) SetLevel(name string) error {
	var level slog.Level
	switch name {
	case "debug", "info", "warn", "error":
		if err := level.UnmarshalText([]byte(name)); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%q is none of debug, info, warn, error", name)
	}
	l.level.Set(level)
	return nil
}

// Level is the present one.
func (l *Log) Level() string { return strings.ToLower(l.level.Level().String()) }

// Lost is how many lines nobody got because the log was not read fast enough, or
// could not be written.
func (l *Log) Lost() uint64 { return l.sink.lost() }

// LeftOut is how many lines were left out because there were too many alike.
func (l *Log) LeftOut() uint64 { return l.flood.leftOut() }

// closeTimeout is how long Close waits for a reader that does not read.
const closeTimeout = time.Second

// Close writes what is left, for a second at most. It is idempotent.
func (l *Log) Close() { l.sink.close(closeTimeout) }
