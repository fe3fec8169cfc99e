package fleet

import "syscall"

// tied is a process in a group of its own (Ctrl-C is for the tester, who wants the
// results first) that the kernel kills when the thread that started it ends.
func tied() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
