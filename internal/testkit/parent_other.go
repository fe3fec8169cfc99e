//go:build !linux

package testkit

import "syscall"

// dieWithParent has no counterpart here: a killed test leaves its servers.
func dieWithParent() *syscall.SysProcAttr { return nil }
