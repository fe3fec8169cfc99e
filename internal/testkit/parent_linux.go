package testkit

import "syscall"

// dieWithParent makes a started server die with the test's process, however
// that ends.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
