package follow_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mutations each take one rule out of the code. A mutation that neither the rule
// tests nor the simulator notices is a rule that nothing defends.
var mutations = []struct {
	rule string // what is no longer done
	file string
	old  string // occurs once
	new  string
}{
	{"F1: a read waits for the confirmation", "link.go", "s.asked = true\n", "s.asked, s.confirmed = true, true\n"},
	{"F1: a confirmation of an earlier subscription is not taken", "link.go", "if l.stale[ch] > 0 {", "if false {"},
	{"F2: a left is obeyed at once", "room.go", "\t\t\t\tc.suspend(m)\n", ""},
	{"F2: an answer that joined or left has overtaken is asked again", "room.go", "case m.again:", "case false:"},
	{"F2: what was read is only for who still follows", "catchup.go", "p.stalled = m.state != memberIn", "p.stalled = false && m.state != memberIn"},
	{"F2: one who left and came back is told a gap", "member.go", "\t\tc.tellGap(ref.id, r, st.after)\n", ""},
	{"F2: a refusal stands only until the version moves", "member.go", "if !m.indexed {\n\t\t\tc.unlink(m)", "if true {\n\t\t\tc.unlink(m)"},
	{"F2: a removal that was heard of is told with its revision", "member.go", "case was == memberSuspended && m.indexed:", "case false:"},
	{"F2: … or without, when the user's channel stays silent", "follow.go", "\t\tc.leftDue(of)\n", "\t\t_ = of\n"},
	{"F2: … before the return of who is back", "member.go", "\t\t\tif m.untold {\n\t\t\t\tc.tellLeft(m)\n\t\t\t}\n", ""},
	{"F2: a left on the user's channel is only obeyed until the members are asked", "member.go", "\tif m.state != memberSuspended {\n\t\tc.check(m)\n\t}\n", ""},
	{"F2: what a log has of the time after a removal waits for the members", "log.go", "if r.head.Less(lp.Head) && lp.Version != r.version && !checked {", "if checked && false {"},
	{"F2: … who are asked once, however often they change", "log.go", "if r.head.Less(lp.Head) && lp.Version != r.version && !checked {", "if r.head.Less(lp.Head) && lp.Version != r.version && (checked || !checked) {"},
	{"F3: joined is followed from its head", "member.go", "\t\t\tc.catchUpFrom(ref, r, st.after)\n", "\t\t\tc.attach(ref.id, r)\n"},
	{"F3: a room that the index has lost is asked about", "member.go", "\tm.indexed = false\n\tif m.state == memberRefused {", "\tm.indexed = false\n\tif true {"},
	{"F3: an index that has lost a room is written again", "member.go", "if is && !m.indexed {\n", "if false {\n"},
	{"F3: … however often that fails", "follow.go", "\t\tc.out.Repair(m)\n", "\t\t_ = m\n"},
	{"F4: hello has a deadline", "follow.go", "\t\tc.helloOverdue(id)\n", "\t\t_ = id\n"},
	{"F4: a room that answers after hello has its position caught up", "member.go", "if pos, ok := ref.job.positions[r.name]; ok {", "if pos, ok := ref.job.positions[r.name]; ok && false {"},
	{"F4: positions are kept until the index is known", "catchup.go", "ref.state == connHeld && u.current() && ", "ref.state == connHeld && "},
	{"F4: rooms that can't be read delay no others", "catchup.go", "p.counted = p.r.sub.confirmed && !p.r.failing; p.counted", "p.counted = true; p.counted"},
	{"F4: … nor when the link breaks meanwhile", "link.go", "\tc.stuck(waitedFor...)\n", ""},
	{"F4: … nor when a read of them fails", "log.go", "\t\tc.stuck(r)\n", ""},
	{"L2: a room is audited after it was subscribed again", "link.go", "\t\t\tr.sub.confirmed = true\n\t\t\tr.audit = r.state != roomNew\n", "\t\t\tr.sub.confirmed = true\n"},
	{"L2: an index is read again after it was subscribed again", "link.go", "\t\t\tu.sub.confirmed = true\n\t\t\tc.compare(u)\n", "\t\t\tu.sub.confirmed = true\n\t\t\tif !u.known {\n\t\t\t\tc.readUser(u)\n\t\t\t}\n"},
	{"L2: an audit's answers from before a break do not count", "link.go", "\t\tr.unask()\n\t\tr.logTok = 0\n", "\t\tr.logTok = 0\n"},
	{"L2: a log read from before a break does not count", "link.go", "\t\tr.unask()\n\t\tr.logTok = 0\n", "\t\tr.unask()\n"},
	{"L2: members are rechecked when the version moved", "room.go", "\t\tc.recheckAt(r, st.Version)\n", ""},
	{"L2: what was sent since waits for the audit", "room.go", "return r.audit || r.recheck", "return r.recheck"},
	{"L2: … and until members are rechecked", "room.go", "return r.audit || r.recheck", "return r.audit"},
	{"L2: joined and left that waited when the link broke are forgotten", "link.go", "\t\tdelete(c.waiting, u)\n", ""},
	{"L2: a version that not all were checked at is not trusted", "room.go", "\t\tr.version = 0\n", ""},
	{"L2: a version is not trusted before the channel was heard", "room.go", "\t\tr.version = 0\n", "\t\tr.version = st.Version\n"},
	{"L2: an index is compared unless nothing but a read has set its revision", "user.go", "if u.exact && st.Rev == u.rev {", "if st.Rev == u.rev {"},
	{"L2: who resumes does not wait for the audits' budget", "follow.go", "len(r.checks)+len(r.parked)+len(r.pend) > 0", "len(r.checks)+len(r.pend) > 0"},
	{"L2: what waits to be audited is audited", "audit.go", "a.tokens = min(a.tokens+more, c.mostAudits())", "_ = more"},
	{"L3: a head that is behind is a lost tail", "room.go", "\tcase behind:\n\t\tc.loseTail(r, st.Head, st.N)\n", ""},
	{"L3: a log that is behind is a lost tail", "log.go", "if lp.Head.Less(r.logHead) {", "if false {"},
	{"L3: behind is measured at the time the read was sent", "room.go", "st.Head.Less(r.askHead)", "st.Head.Less(r.head)"},
	{"L3: a head that is behind is a lost tail whatever it was read for", "room.go", "case r.audit || behind:", "case r.audit:"},
	{"L3: the hot tail is dropped", "room.go", "\tr.tail, r.tailBytes = nil, 0\n", ""},
	{"L3: the log is read on after a lost tail", "room.go", "\t}\n\tc.catchUp(r)\n}", "\t}\n\tr.state = roomLive\n\tc.drainPend(r)\n}"},
	{"L3: a new epoch has everything read again", "link.go", "if known && old == epoch {", "if known || old == epoch {"},
	{"L3: the first epoch has everything compared", "link.go", "if known && old == epoch {", "if !known || old == epoch {"},
	{"L4: prev must match", "room.go", "case h.Prev == r.head:", "case true:"},
	{"L4: live messages wait behind a catch-up", "room.go", "case r.state != roomLive || r.unchecked():\n\t\tc.pend(r, h, payload)\n", "case r.state != roomLive || r.unchecked():\n"},
	{"L4: what was dropped over the bound is read", "room.go", "if over && r.state == roomLive {", "if over && false {"},
	{"L4: the anchor of a catch-up must be proven", "log.go", "\tif !proven {\n\t\tif i == len(pg.frames) && pg.more {", "\tif !proven && false {\n\t\tif i == len(pg.frames) && pg.more {"},
	{"L4: what follows a lost tail waits until members are rechecked", "log.go", "\tif version != r.version {\n\t\tc.recheckAt(r, version)\n\t}\n", ""},
	{"L4: a catch-up takes as many pages as there are", "log.go", "\t\tif pg.more {\n\t\t\tc.readLog(r)\n\t\t\treturn\n\t\t}\n", ""},
	{"L4: a message that no log has is let go", "room.go", "\tcase inLog:\n", ""},
	{"L5: a position newer than the head is looked up", "catchup.go", "\tif p.pos == r.head {\n\t\tc.arrive(p)\n\t\treturn\n\t}\n\tif i, ok", "\tif !p.pos.Less(r.head) {\n\t\tc.arrive(p)\n\t\treturn\n\t}\n\tif i, ok"},
	{"L5: a position that came after the read is read for again", "log.go", "!proven && (pg.more || p.late)", "!proven && pg.more"},
	{"L5: what is delivered to anybody is the room's head", "log.go", "\tif !c.advance(r, &pg) {", "\tif r.state == roomCatching && !c.advance(r, &pg) {"},
	{"M3: an older revision is ignored", "user.go", "if ev.RoomsRev <= u.rev {", "if false {"},
	{"M3: a revision is told only to who was told the one before", "user.go", "\t\tref.unsure = true\n", ""},
	{"M3: what is told before a joined that waits does not hide it", "member.go", "\t\tc.unsettle(ref) // what it is told before this must not hide it\n", ""},
	{"M3: a revision that was a guess is not made true by the next", "user.go", "ref.unsure = !u.known", "ref.unsure = false"},
	{"M3: joined and left wait while the index is read", "user.go", "case u.readTok == 0 && u.known:", "case u.known:"},
	{"M4: a missed disconnection is found", "user.go", "if made != 0 && made <= before || made == 0 && news {", "if (made != 0 || news) && false {"},
	{"M4: a connection is as old as the token that it has now", "user.go", "\tu.conns[i].issuedAt = uint32(issuedAt)\n", ""},
	{"R1: nothing comes before the positions", "user.go", "\tif ref.resume {\n", "\tif false {\n"},
	{"R1: a position that could not be kept is not taken for one that was not told", "catchup.go", "j.cut = true", "_ = j.cut"},
	{"R1: a room that is not named starts at hello", "catchup.go", "\t\t\tpos, known = start[r.name]\n", "\t\t\tpos, known = r.head, start != nil\n"},
	{"R1: resumed waits for every room", "catchup.go", "if j.dead || len(j.pulls) > 0 || !j.u.decided() {", "if j.dead {"},
	{"R1: a connection is attached when it has what came before", "catchup.go", "\t\tp.blind = !known", "\t\tc.attach(ref.id, r)\n\t\tp.blind = !known"},
	{"R1: one catch-up per connection and room", "member.go", "if p := ref.job.pullOf(r); p != nil {\n\t\t\t\tif p.told", "if p := ref.job.pullOf(r); p != nil && false {\n\t\t\t\tif p.told"},
	{"R1: a slow reader is caught up", "catchup.go", "\t\tp.lagged = true\n\t\tc.enqueue(p)\n", "\t\tp.lagged = true\n\t\tc.arrive(p)\n"},
	{"R1: what a loop says across a Detach is not believed", "catchup.go", "if c.detached[id].has(r) {", "if c.detached[id].has(r) && false {"},
	{"R2: an unproven position is a gap", "log.go", "\t\tcase !proven:\n\t\t\tc.gap(p)\n", "\t\tcase !proven:\n\t\t\tc.arrive(p)\n"},
	{"R2: a lost tail is told", "room.go", "\tc.tellGap(ref.id, r, after)\n\tc.attach", "\tc.attach"},
	{"R2: a lost tail makes loops forget what they left out", "room.go", "\tc.detachFrom(ref, r)\n", ""},
	{"R3: a resume is bounded", "catchup.go", "if missed > c.cfg.ResumeRoom || p.j.sent+missed > c.cfg.ResumeConn {", "if false {"},
	{"R3: what is begun counts whole", "catchup.go", "\tp.j.sent += missed\n", ""},
	{"R4: a time that nothing is newer than has nothing read", "catchup.go", "if p.timed && !p.pos.Less(r.head) {", "if false {"},
	{"R4: memory proves a time by what it lies between", "catchup.go", "prev == pos || timed && prev.Less(pos)", "prev == pos || timed"},
	{"R4: the log proves a time by what it lies between", "log.go", "prev == pos || timed && prev.Less(pos)", "prev == pos || timed"},
	{"R4: a time goes back by a margin", "opening.go", "ms > margin {", "false && ms > margin {"},
	{"R4: a time that is still to come says nothing", "catchup.go", "p.blind || p.timed && c.ahead(p.pos)", "p.blind"},
	{"R4: a room that is found late is repeated from the time", "member.go", "j.timed && !before {", "j.timed && !before && false {"},
	{"R4: … also when it was joined meanwhile", "catchup.go", "\t\t\t\tj.positions[r.name] = j.since\n", ""},
	{"R4: one who left and came back is told a gap, whatever the time", "member.go", "j.timed && !before {", "j.timed && (before || !before) {"},
	{"R4: joined does not say a time", "member.go", "if p.timed { // no", "if false { // no"},
	{"R4: a head that joined has told is not lost without a word", "room.go", "\t\t\t\t\tc.tellGap(ref.id, r, after)\n", ""},
	{"R4: … nor while it is asked whether one is a member again", "member.go", "\t\t\t\t\tc.tellGap(ref.id, r, c.starts[m].after)\n", ""},
	{"R4: what follows it is not too old", "catchup.go", "if p.timed && at.Less(p.pos) {", "if false {"},
	{"R4: who takes times is told when nothing older is owed", "catchup.go", "announce: ref.via == edge.SSE}", "}"},
	{"R4: a time is that of the link that is behind", "opening.go", "c.clocks.least = min(c.clocks.least, ms)", "c.clocks.least = max(c.clocks.least, ms)"},
	{"R4: times stand still while a link is silent", "opening.go", "if ms > c.clocks.least+aheadMs {", "if false {"},
	{"R4: a link's time stands still until what it missed has been read", "opening.go", "if !c.settled(l.owed[last]) {", "if false {"},
	{"R4: … until a room whose prev did not match has caught up", "log.go", "\tc.owe(r.sub.link, owing{r: r})\n", ""},
	{"R4: … until what an epoch lost is known", "link.go", "c.owe(r.sub.link, owing{r: r})\n\t\tr.unask()", "r.unask()"},
	{"R4: a slow reader who takes times is told in any case", "catchup.go", "\tif ref.via == edge.SSE {\n\t\tc.jobOf(ref)\n\t}\n", ""},
	{"R4: a poll is told where it starts", "catchup.go", "\t\tc.polled(u, ref)\n", ""},
	{"R4: a poll starts at the beginning of a room that can't be followed yet", "opening.go", "if m.state == memberRefused {", "if m.state != memberIn {"},
	{"R4: a poll whose rooms are not known is not told where it starts", "catchup.go", "edge.LongPoll && u.known && (", "edge.LongPoll && ("},
	{"R4: a poll keeps its positions while the index is to be read again", "opening.go", "\t\tif !u.current() {\n\t\t\tfor", "\t\tif false {\n\t\t\tfor"},
	{"R4: … which it is when the channel may have been silent", "user.go", "return u.known && u.sub.confirmed && u.readTok == 0", "return u.known"},
	{"reads that fail are tried again", "follow.go", "\t\tc.again(r)\n", "\t\t_ = r\n"},
}

// TestEveryRuleIsNeeded builds the package without one rule after the other, and
// wants the rule tests or the simulator to fail. It takes minutes, and so runs
// with MADANG_TEST_FULL=1 only; docs/guarantees.md has what it prints.
func TestEveryRuleIsNeeded(t *testing.T) {
	if os.Getenv("MADANG_TEST_FULL") == "" {
		t.Skip("takes minutes: MADANG_TEST_FULL=1")
	}
	only := os.Getenv("MADANG_MUTATION") // a part of a rule's text
	for _, m := range mutations {
		if only != "" && !strings.Contains(m.rule, only) {
			continue
		}
		overlay := mutate(t, m.file, m.old, m.new)
		var noticed []string
		out, failed := run(t, overlay, ".", "-run", "^Test([FLMR][0-9]|ID|Linger|ACatch)")
		if failed {
			names := regexp.MustCompile(`--- FAIL: (Test\w+)`).FindAllStringSubmatch(out, -1)
			if len(names) == 0 {
				t.Errorf("%s: does not build:\n%s", m.rule, out)
				continue
			}
			noticed = append(noticed, names[0][1])
			if len(names) > 1 {
				noticed = append(noticed, fmt.Sprintf("%d other rule tests", len(names)-1))
			}
		}
		out, failed = run(t, overlay, "./sim", "-run", "^TestSim$", "-sim.seed=1", "-sim.n=30000")
		if failed {
			what := regexp.MustCompile(`seed (\d+): (\w+):`).FindStringSubmatch(out)
			if what == nil {
				noticed = append(noticed, "the simulator")
			} else {
				noticed = append(noticed, "the simulator by schedule "+what[1]+" ("+what[2]+")")
			}
		}
		if len(noticed) == 0 {
			t.Errorf("%s: nobody notices when it is gone", m.rule)
			continue
		}
		t.Logf("%s: %s", m.rule, strings.Join(noticed, ", "))
	}
}

// TestMutationsApply keeps the list in step with the code.
func TestMutationsApply(t *testing.T) {
	for _, m := range mutations {
		mutate(t, m.file, m.old, m.new)
	}
}

// mutate writes an overlay for go build in which a file is changed at one place.
func mutate(t *testing.T, file, old, new string) string {
	t.Helper()
	path, err := filepath.Abs(file)
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
	changed := filepath.Join(dir, file)
	if err := os.WriteFile(changed, []byte(strings.Replace(string(src), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func run(t *testing.T, overlay, pkg string, args ...string) (out string, failed bool) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"test", "-vet=off", "-count=1", "-timeout=5m", "-overlay", overlay, pkg}, args...)...)
	b, err := cmd.CombinedOutput()
	return string(b), err != nil
}
