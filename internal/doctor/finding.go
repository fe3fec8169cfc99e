package doctor

import (
	"fmt"
	"strings"
)

// Level is how bad a finding is.
type Level uint8

// Levels, from harmless to harmful.
const (
	OK      Level = iota
	Unknown       // it could not be looked at
	Warning       // it works, and will hurt under load or in an accident
	Error         // it does not work, or acknowledged messages can be lost
)

var levelNames = [...]string{OK: "ok", Unknown: "unknown", Warning: "warning", Error: "error"}

func (l Level) String() string { return levelNames[l] }

// MarshalText is the level's name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Finding is the result of one check.
type Finding struct {
	Level Level `json:"level"`
	// Check names what was looked at, always in the same words.
	Check string `json:"check"`
	// Found is what is there.
	Found string `json:"found"`
	// Why says what happens when it stays so. Empty when all is well.
	Why string `json:"why,omitempty"`
	// Fix is a command, or several joined by newlines, that put it right; when a
	// sentence is needed it begins with "#", as in a shell.
	Fix string `json:"fix,omitempty"`
}

// findings collects the results of checks.
type findings []Finding

func (f *findings) ok(check, found string, args ...any) {
	*f = append(*f, Finding{Level: OK, Check: check, Found: fmt.Sprintf(found, args...)})
}

func (f *findings) unknown(check, found string, args ...any) {
	*f = append(*f, Finding{Level: Unknown, Check: check, Found: fmt.Sprintf(found, args...)})
}

func (f *findings) bad(l Level, check, found, why, fix string) {
	*f = append(*f, Finding{Level: l, Check: check, Found: found, Why: why, Fix: fix})
}

// sysctl is the command that sets a kernel parameter now and at every start.
func sysctl(name string, value any) string {
	return fmt.Sprintf("echo '%s = %v' | sudo tee -a /etc/sysctl.d/90-madang.conf && sudo sysctl -w %s='%v'", name, value, name, value)
}

// Worst is the worst level among findings.
func Worst(fs []Finding) Level {
	worst := OK
	for _, f := range fs {
		worst = max(worst, f.Level)
	}
	return worst
}

// Role is what a host is used for; a check belongs to some roles only.
type Role uint8

// Roles.
const (
	Gateway Role = 1 << iota
	API
	RedisServer
	Balancer
)

var roleNames = map[string]Role{"gateway": Gateway, "api": API, "redis": RedisServer, "balancer": Balancer}

// RoleNames are the names that ParseRoles knows, sorted.
func RoleNames() []string { return []string{"api", "balancer", "gateway", "redis"} }

// ParseRoles makes a set of roles of their names.
func ParseRoles(names []string) (Role, error) {
	var r Role
	for _, n := range names {
		role, ok := roleNames[n]
		if !ok {
			return 0, fmt.Errorf("role %q is none of %s", n, strings.Join(RoleNames(), ", "))
		}
		r |= role
	}
	return r, nil
}

func (r Role) has(any Role) bool { return r&any != 0 }
