package testkit

import "syscall"

// FreePort finds a port of the loopback that is free and stays so for a process
// that comes back to it.
func FreePort() int { return freePort() }

// DieWithParent makes a started process die with the test's process, however
// that ends. The thread that starts it must live as long as it is to.
func DieWithParent() *syscall.SysProcAttr { return dieWithParent() }
