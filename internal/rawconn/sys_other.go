//go:build !linux

package rawconn

import "syscall"

const supported = false

func sysRead(uintptr, []byte) (int, syscall.Errno)  { panic("BUG: not supported here") }
func sysWrite(uintptr, []byte) (int, syscall.Errno) { panic("BUG: not supported here") }
func sysNothing(uintptr) bool                       { return false }
