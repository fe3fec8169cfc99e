package probe

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// read finds sockets in /proc/net/tcp: a line for each of the machine, so that it
// takes seconds where there are hundreds of thousands. It is for where diagnose
// does not work.
func read(state, localPort, remotePort int) (found []socket) {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			w := strings.Fields(lines.Text())
			if len(w) < 10 || w[0] == "sl" {
				continue
			}
			s := socket{localPort: port(w[1]), remotePort: port(w[2])}
			if is, err := strconv.ParseInt(w[3], 16, 32); err != nil || int(is) != state {
				continue
			}
			if localPort != 0 && s.localPort != localPort || remotePort != 0 && s.remotePort != remotePort {
				continue
			}
			if inode, err := strconv.ParseUint(w[9], 10, 32); err == nil {
				s.inode = uint32(inode)
				found = append(found, s)
			}
		}
		f.Close()
	}
	return found
}

func port(address string) int {
	_, hex, _ := strings.Cut(address, ":")
	p, _ := strconv.ParseInt(hex, 16, 32)
	return int(p)
}
