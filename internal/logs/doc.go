// Package logs is a process's log: lines of slog, as JSON or for people, to
// standard error. Three things make it safe to log from anywhere:
//
//   - Nobody waits for who reads the log. Lines go into a bounded buffer that one
//     goroutine writes out; when the reader is too slow, lines are lost and
//     counted, and the log says how many.
//   - No client can flood it: of the same message only some a second are kept,
//     the next one says how many were left out.
//   - The level can be changed while the process runs.
//
// It knows nothing of what is logged. internal/app makes the one Log of a process
// and closes it last.
package logs
