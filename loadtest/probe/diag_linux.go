package probe

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Layout of sock_diag(7), which x/sys does not have.
const (
	sockDiagByFamily = 20
	requestBytes     = 56 // struct inet_diag_req_v2
	answerBytes      = 72 // struct inet_diag_msg
	// Offsets in both, of struct inet_diag_sockid.
	requestPorts = 8
	answerPorts  = 4
	answerInode  = 68
)

// diagnose asks the kernel for sockets by state and ports (sock_diag(7)): it
// passes over what is not asked for, and does not even look at connections when it
// is asked for listeners.
func diagnose(state, localPort, remotePort int) (found []socket, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	defer unix.Close(fd)
	// A kernel that does not answer must not keep a run from its report.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, fmt.Errorf("sock_diag: %w", err)
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if found, err = ask(fd, family, state, localPort, remotePort, found); err != nil {
			return nil, fmt.Errorf("sock_diag: %w", err)
		}
	}
	return found, nil
}

func ask(fd int, family byte, state, localPort, remotePort int, found []socket) ([]socket, error) {
	native := binary.NativeEndian
	req := make([]byte, unix.NLMSG_HDRLEN+requestBytes)
	native.PutUint32(req[0:], uint32(len(req)))
	native.PutUint16(req[4:], sockDiagByFamily)
	native.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := req[unix.NLMSG_HDRLEN:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	native.PutUint32(body[4:], 1<<state)
	binary.BigEndian.PutUint16(body[requestPorts:], uint16(localPort))
	binary.BigEndian.PutUint16(body[requestPorts+2:], uint16(remotePort))
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10) // more than the kernel puts into one answer
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(native.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return nil, unix.EBADMSG
			}
			msg := b[unix.NLMSG_HDRLEN:size]
			switch kind := native.Uint16(b[4:]); {
			case kind == unix.NLMSG_DONE:
				return found, nil
			case kind == unix.NLMSG_ERROR && len(msg) >= 4:
				return nil, unix.Errno(-int32(native.Uint32(msg)))
			case kind == sockDiagByFamily && len(msg) >= answerBytes:
				found = append(found, socket{
					localPort:  int(binary.BigEndian.Uint16(msg[answerPorts:])),
					remotePort: int(binary.BigEndian.Uint16(msg[answerPorts+2:])),
					inode:      native.Uint32(msg[answerInode:]),
				})
			}
			b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
		}
	}
}
