package fleet

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// tied is a process in a group of its own (Ctrl-C is for the tester, who wants the
// results first) that the kernel kills when the thread that started it ends.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// favour has a process run before others. It takes root; without it, nothing
// changes.
func favour(pid int) {
	const nice = -15
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, nice)
}
