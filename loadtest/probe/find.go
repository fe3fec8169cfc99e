package probe

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Listeners finds the processes of this machine that listen on one of the ports.
// What it costs does not depend on how many connections there are, as long as
// processes opened their listeners before those.
func Listeners(role string, ports ...int) []Proc {
	inodes := map[uint32]int{}
	for _, port := range ports {
		for _, s := range sockets(listening, port, 0) {
			inodes[s.inode] = port
		}
	}
	var found []Proc
	for pid, port := range owners(inodes) {
		found = append(found, Proc{Pid: pid, Name: comm(pid), Role: role, Port: port})
	}
	slices.SortFunc(found, func(a, b Proc) int { return a.Port - b.Port })
	return found
}

// Redises finds the Redis servers of this machine that the given processes are
// connected to.
func Redises(clients []Proc) []Proc {
	var found []Proc
	listeners := sockets(listening, 0, 0)
	for _, pid := range processes() {
		name := comm(pid)
		if !strings.Contains(name, "redis") && !strings.Contains(name, "valkey") {
			continue
		}
		for _, l := range listeners {
			if !holds(pid, map[uint32]int{l.inode: l.localPort}) {
				continue
			}
			peers := map[uint32]int{}
			for _, s := range sockets(established, 0, l.localPort) {
				peers[s.inode] = l.localPort
			}
			if slices.ContainsFunc(clients, func(c Proc) bool { return holds(c.Pid, peers) }) {
				found = append(found, Proc{Pid: pid, Name: name, Role: "redis", Port: l.localPort})
				break // a second address of the same server
			}
		}
	}
	slices.SortFunc(found, func(a, b Proc) int { return a.Port - b.Port })
	return found
}

// socket is a TCP socket of this machine.
type socket struct {
	localPort, remotePort int
	inode                 uint32
}

// States of sockets, as the kernel numbers them.
const (
	established = 1
	listening   = 10
)

// sockets are those in a state, with these ports; 0: any.
func sockets(state, localPort, remotePort int) []socket {
	all, err := diagnose(state, localPort, remotePort)
	if err != nil { // no netlink in this container, or not Linux
		all = read(state, localPort, remotePort)
	}
	return all
}

const (
	early      = 256 // descriptors: what a process opens before its clients come
	everything = 1 << 30
)

// owners finds the processes that hold sockets. Listeners are opened first: the
// few lowest descriptors of all processes are looked at before the hundred
// thousand of any.
func owners(inodes map[uint32]int) map[int]int {
	found := map[int]int{}
	if len(inodes) == 0 {
		return found
	}
	left := map[uint32]bool{}
	for inode := range inodes {
		left[inode] = true
	}
	all := processes()
	for _, depth := range []int{early, everything} {
		for _, pid := range all {
			eachSocket(pid, depth, func(inode uint32) bool {
				if port, ok := inodes[inode]; ok {
					found[pid] = port
					delete(left, inode)
				}
				return true
			})
		}
		if len(left) == 0 {
			break
		}
	}
	return found
}

// holds says whether one of a process's descriptors is one of the sockets.
func holds(pid int, inodes map[uint32]int) bool {
	held := false
	if len(inodes) > 0 {
		eachSocket(pid, everything, func(inode uint32) bool {
			_, held = inodes[inode]
			return !held
		})
	}
	return held
}

func processes() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// eachSocket calls f for the sockets among a process's depth lowest descriptors,
// as long as it returns true.
func eachSocket(pid, depth int, f func(inode uint32) bool) {
	path := fmt.Sprintf("/proc/%d/fd", pid)
	dir, err := os.Open(path)
	if err != nil {
		return // ended, or somebody else's
	}
	defer dir.Close()
	for n := 0; n < depth; n += early {
		names, err := dir.Readdirnames(early) // the kernel lists them in order
		for _, name := range names {
			link, err := os.Readlink(path + "/" + name)
			if err != nil {
				continue
			}
			number, ok := strings.CutPrefix(link, "socket:[")
			if !ok {
				continue
			}
			inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32)
			if err == nil && !f(uint32(inode)) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func comm(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(b))
}
