package test

import "syscall"

// mountSmall mounts a disk of half a megabyte.
func mountSmall(at string) (unmount func() error, err error) {
	err = syscall.Mount("tmpfs", at, "tmpfs", 0, "size=512k")
	return func() error { return syscall.Unmount(at, 0) }, err
}
