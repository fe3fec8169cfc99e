package main

import (
	"strings"
	"testing"
	"time"
)

func TestAStormIsMeasured(t *testing.T) {
	var out strings.Builder
	err := run(t.Context(), options{clients: 40, each: 3, members: 4, times: 2, inFlight: 64, rest: 300 * time.Millisecond, most: 5}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"40 clients on one gateway, each in 3 rooms of 4 (30 rooms)", "all live after", "median", "commands of the storm with the most"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "on the way:") {
		t.Errorf("not everything went well:\n%s", out.String())
	}
	t.Log(out.String())
}
