package config

import (
	"errors"
	"fmt"
	"regexp"
	"sort"
	"strings"
)

// EnvPrefix begins every environment variable that is a setting.
const EnvPrefix = "MADANG_"

// testPrefix begins variables that steer the project's own tests.
const testPrefix = EnvPrefix + "TEST_"

// injected matches what Kubernetes puts into every container's environment for a
// service whose name begins with "madang": not settings, and nobody's mistake.
var injected = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// CheckEnviron reports variables that look like settings and are none: known has
// every setting's variable.
func CheckEnviron(environ []string, known map[string]bool) error {
	var bad []error
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, EnvPrefix) || strings.HasPrefix(name, testPrefix) || known[name] || injected.MatchString(name) {
			continue
		}
		bad = append(bad, fmt.Errorf("environment: unknown setting %s%s", name, suggestion(name, known)))
	}
	sort.Slice(bad, func(i, j int) bool { return bad[i].Error() < bad[j].Error() })
	return errors.Join(bad...)
}

// suggestion is the most similar known name, as a remark; "" when none is near.
func suggestion(name string, known map[string]bool) string {
	best, bestDistance := "", len(name)/3+1
	for k := range known {
		if d := distance(name, k); d < bestDistance || d == bestDistance && best != "" && k < best {
			best, bestDistance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the number of letters to change, insert or remove (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
