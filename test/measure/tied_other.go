//go:build !linux

package main

import "syscall"

// tied is any process: only Linux kills it with the program that started it.
func tied() *syscall.SysProcAttr { return nil }
