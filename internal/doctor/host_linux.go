package doctor

import "golang.org/x/sys/unix"

// readProcess asks the kernel for what no file tells.
func (h *Host) readProcess() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		h.NoFileSoft, h.NoFileHard = clampLimit(l.Cur), clampLimit(l.Max)
	}
	// With modes 0 adjtimex only reads; the state is TIME_ERROR while nothing
	// keeps the clock.
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err == nil {
		h.ClockKnown, h.ClockSynced = true, state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	}
}

func clampLimit(v uint64) int64 { return int64(min(v, 1<<62)) }
