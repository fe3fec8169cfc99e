package main

import "syscall"

// tied is a process that the kernel kills with the program that started it.
func tied() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
