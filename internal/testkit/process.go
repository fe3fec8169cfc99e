package testkit

import (
	"os/exec"
	"runtime"
)

// Launch starts a process that dies with the test's, however that ends. done is
// closed when it has ended.
func Launch(cmd *exec.Cmd) (done <-chan struct{}, err error) {
	cmd.SysProcAttr = dieWithParent()
	ended := make(chan struct{})
	started := make(chan error, 1)
	go func() {
		defer close(ended)
		// "Die with the parent" means the thread that forked, so that thread must
		// live as long as the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	return ended, <-started
}
