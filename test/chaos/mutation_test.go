package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mutations each break the system in one obvious way. What chaos does not notice,
// it would not notice when somebody breaks it by mistake. (gateway/follow takes out
// every rule of delivery in the same way.)
var mutations = []struct {
	broken         string
	file, old, new string // file from the module's root; old occurs once
	redis, kinds   string // where chaos must notice it
	ack            int
}{
	{
		"nothing is audited after a link was made again",
		"gateway/follow/link.go", "\t\t\tr.sub.confirmed = true\n\t\t\tr.audit = r.state != roomNew\n", "\t\t\tr.sub.confirmed = true\n",
		standalone, "link to Redis refused,link to Redis half", 0,
	},
	{
		"a send is acknowledged before the script has run",
		"internal/redisstore/send.go", "\t\treply, err := s.do(ctx, writes, &c.call)\n",
		"\t\treply, err := s.do(ctx, writes, &c.call)\n\t\tif err != nil && ctx.Err() == nil {\n\t\t\tms := uint64(time.Now().UnixMilli())\n\t\t\treturn chat.Sent{ID: protocol.ID{Ms: ms}, Tail: send.Tail}, nil\n\t\t}\n",
		standalone, "AOF", 0,
	},
	{
		"the idempotency key is forgotten",
		"internal/redisstore/script/send.lua", "if prior then\n", "if false then\n",
		standalone, "API stopped,primary stopped", 0,
	},
	{
		"the replicas' answer to WAIT is not looked at",
		"internal/redisstore/lane.go", "return err == nil && n >= replicas && a.mark.Err() == nil", "return err == nil || n >= 0 || replicas > 0",
		sentinel, "unprepared", 2,
	},
	{
		"a link whose canaries stay away is kept",
		"internal/redisstore/link.go", "if now.Sub(l.back) > canaryLimit {\n\t\tl.mu.Unlock()", "if false {\n\t\tl.mu.Unlock()",
		standalone, "link to Redis goes silent", 0,
	},
	{
		"a new epoch is nothing",
		"gateway/follow/link.go", "if known && old == epoch {", "if known && old == epoch || true {",
		standalone, "FLUSHALL", 0,
	},
}

// TestChaosNoticesWhatIsBroken builds madang with each mutation and lets chaos at
// it. It takes minutes, and so runs with MADANG_TEST_FULL=1 only.
func TestChaosNoticesWhatIsBroken(t *testing.T) {
	if os.Getenv("MADANG_TEST_FULL") == "" {
		t.Skip("takes minutes: MADANG_TEST_FULL=1")
	}
	only := os.Getenv("MADANG_MUTATION") // a part of what is broken
	for _, m := range mutations {
		if !strings.Contains(m.broken, only) {
			continue
		}
		t.Run(m.broken, func(t *testing.T) {
			opt := defaults()
			opt.seed, opt.during, opt.ack = 1, 40*time.Second, m.ack
			opt.users, opt.rooms, opt.rate, opt.senders = 12, 10, 120, 12
			opt.dir = t.TempDir()
			var account strings.Builder
			opt.out = &account
			opt.binary = filepath.Join(opt.dir, "madang")
			build := exec.Command("go", "build", "-tags", "nomsgpack", "-overlay", mutate(t, m.file, m.old, m.new), "-o", opt.binary, "github.com/madang-chat/madang/cmd/madang")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			res, err := run(t.Context(), opt.on(m.redis, m.kinds))
			if err != nil {
				t.Fatal(err)
			}
			if len(res.violations) == 0 {
				res.print(&account)
				t.Fatalf("nobody notices\n%s", account.String())
			}
			t.Logf("noticed after %d faults: %s", res.faultCount(), res.violations[0])
		})
	}
}

// TestMutationsApply keeps the list in step with the code.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations {
		mutate(t, m.file, m.old, m.new)
		opt := defaults()
		opt.ack = m.ack
		if m.kinds != flushed && len(opt.on(m.redis, m.kinds).kinds) == 0 {
			t.Errorf("%s: there is no fault %q on %s", m.broken, m.kinds, m.redis)
		}
	}
}

// mutate writes an overlay for go build in which a file is changed at one place.
func mutate(t *testing.T, file, old, new string) (overlay string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), old); n != 1 {
		t.Errorf("%s has %d places like %q, want 1", file, n, old)
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, filepath.Base(file))
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	overlay = filepath.Join(dir, "overlay.json")
	for name, data := range map[string][]byte{changed: []byte(strings.Replace(string(src), old, new, 1)), overlay: list} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(fmt.Errorf("writing %s: %w", name, err))
		}
	}
	return overlay
}
