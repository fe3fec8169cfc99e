//go:build !linux

package fleet

import "syscall"

// tied is a process in a group of its own. Only Linux kills it with the program
// that started it: elsewhere what a killed tester leaves is the user's to end.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// favour is for fleets of dozens of processes, which are Linux's.
func favour(int) {}
