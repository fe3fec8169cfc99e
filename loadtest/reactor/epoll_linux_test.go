package reactor_test

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/madang-chat/madang/loadtest/reactor"
)

// A container's filter of system calls that does not know epoll_pwait2 refuses it with
// EPERM, as if the kernel had it: the tester waits in whole milliseconds then.
func TestWaitsWhereAFilterRefusesTheNewCall(t *testing.T) {
	filtered := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the filter ends with the thread
		err := refuse(unix.SYS_EPOLL_PWAIT2)
		filtered <- err
		if err != nil {
			return
		}
		r, err := reactor.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer r.Close()
		ran := false
		r.Post(func() { ran = true })
		if err := r.Wait(time.Minute, func() {}, func(uint32, uint32) {}); err != nil || !ran {
			t.Errorf("%v; what was posted has run: %v", err, ran)
		}
	}()
	<-done
	if err := <-filtered; err != nil {
		t.Skip("no filter can be set here: ", err)
	}
}

// refuse has a call end with EPERM on this thread.
func refuse(call uint32) error {
	const allow, refused = 0x7fff0000, 0x00050000 | uint32(unix.EPERM) // SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call's number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call},
		{Code: unix.BPF_RET | unix.BPF_K, K: refused},
		{Code: unix.BPF_RET | unix.BPF_K, K: allow},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
