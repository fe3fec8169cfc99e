package loop

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Several limits of a host keep clients out, and each has a remedy of its own.
func TestTheLogSaysWhichLimitKeepsClientsOut(t *testing.T) {
	for why, want := range map[error]string{
		unix.EMFILE: "LimitNOFILE", unix.ENFILE: "fs.file-max", unix.ENOMEM: "madang doctor",
		fmt.Errorf("epoll_ctl: %w", unix.ENOSPC): "fs.epoll.max_user_watches",
	} {
		if got := remedy(why); !strings.Contains(got, want) {
			t.Errorf("%v: %s", why, got)
		}
	}
}
