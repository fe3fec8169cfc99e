package app

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/madang-chat/madang/internal/config"
	"github.com/madang-chat/madang/internal/logs"
)

// NewLogger is the process's logger, as the settings want it. A text log is
// coloured on a terminal. CloseLog writes what is left of it, last of all.
func NewLogger(c config.Process, w io.Writer) *slog.Logger {
	return logs.New(logs.Options{Out: w, Level: c.LogLevel, JSON: c.LogFormat == "json", Color: isTerminal(w)}).Logger()
}

// CloseLog ends the log of a logger that NewLogger made.
func CloseLog(log *slog.Logger) {
	if l := logs.From(log); l != nil {
		l.Close()
	}
}

// lost and leftOut count lines that nobody will read; 0 for a logger that is not
// NewLogger's.
func lost(log *slog.Logger) uint64 {
	if l := logs.From(log); l != nil {
		return l.Lost()
	}
	return 0
}

func leftOut(log *slog.Logger) uint64 {
	if l := logs.From(log); l != nil {
		return l.LeftOut()
	}
	return 0
}

// maxLevelBytes bounds what is read of a request: a level's name is short.
const maxLevelBytes = 16

// logLevel tells the log's level, and changes it until the process ends.
func logLevel(log *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		l := logs.From(log)
		if l == nil {
			http.Error(w, "this process does not log by itself", http.StatusNotFound)
			return
		}
		if r.Method == http.MethodPut {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevelBytes))
			was := l.Level()
			if err == nil {
				err = l.SetLevel(strings.TrimSpace(string(body)))
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			log.Warn("the log level was changed", "from", was, "to", l.Level())
		}
		fmt.Fprintln(w, l.Level())
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
