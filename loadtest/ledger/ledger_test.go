package ledger_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/madang-chat/madang/loadtest/ledger"
	"github.com/madang-chat/madang/protocol"
)

// script is a room's life as lines: "r0 5" reader 0 gets entry 5 by socket,
// "r0 page 5" from history, "r0 gap 5", "r0 paged 5", "r0 resume 5" resumes and
// is expected to name 5, "ack 5". Entry e has ID 0-e, predecessor e-1 (or given
// as "r0 7<5") and send e (or given as "r0 7=3", "ack 7=3").
type script struct {
	t     *testing.T
	book  ledger.Book
	acks  []ledger.Ack
	verbs []ledger.Verdict
}

func play(t *testing.T, readers int, lines ...string) (*script, ledger.Judgement) {
	t.Helper()
	s := &script{t: t}
	for range readers {
		s.book.Open(7, 0)
	}
	for _, line := range lines {
		s.line(line)
	}
	return s, s.book.Judge(s.acks, ledger.Names{Room: func(room uint32) string { return fmt.Sprintf("r%d", room) }})
}

func (s *script) line(line string) {
	s.t.Helper()
	words := strings.Fields(line)
	pos, prev, send := parse(s.t, words[len(words)-1])
	if words[0] == "ack" {
		s.acks = append(s.acks, ledger.Ack{Room: 7, Send: send, Pos: pos})
		return
	}
	reader := ledger.ReaderID(words[0][1] - '0')
	if len(words) == 2 {
		s.verbs = append(s.verbs, s.book.Arrive(reader, pos, prev, send))
		return
	}
	switch words[1] {
	case "page":
		s.verbs = append(s.verbs, s.book.Page(reader, pos, send))
	case "gap":
		after := s.book.Position(reader)
		if strings.Contains(line, "<") {
			after = prev
		}
		s.book.Gap(reader, after, pos)
	case "paged":
		s.book.Paged(reader, pos)
	case "resume":
		if got := s.book.Resume(reader); got != pos {
			s.t.Errorf("%q: resumed with %d", line, got)
		}
	default:
		s.t.Fatalf("line %q", line)
	}
}

func parse(t *testing.T, word string) (pos, prev ledger.Pos, send ledger.Send) {
	t.Helper()
	var p, b, q uint64
	switch {
	case strings.Contains(word, "<"):
		fmt.Sscanf(word, "%d<%d", &p, &b)
		q = p
	case strings.Contains(word, "="):
		fmt.Sscanf(word, "%d=%d", &p, &q)
		b = p - 1
	default:
		fmt.Sscanf(word, "%d", &p)
		b, q = p-1, p
	}
	return ledger.Pos(p), ledger.Pos(b), ledger.Send(q)
}

func TestJudgement(t *testing.T) {
	type want struct{ owed, kept, lost, noticed, unacked, doubled, wrong uint64 }
	cases := []struct {
		name    string
		readers int
		lines   string
		want    want
		counts  ledger.Counts
		says    string
	}{
		{"all in order", 2, "r0 1,r0 2,r1 1,r1 2,ack 1,ack 2", want{owed: 4, kept: 4}, ledger.Counts{Delivered: 4}, ""},
		{"a repeat on the wire is dropped", 1, "r0 1,r0 2,r0 1,r0 2,ack 1,ack 2", want{owed: 2, kept: 2}, ledger.Counts{Delivered: 2, Duplicates: 2}, ""},
		{"the tail is lost for one", 2, "r0 1,r0 2,r1 1,ack 1,ack 2", want{owed: 4, kept: 3, lost: 1}, ledger.Counts{Delivered: 3}, "reader 1 never got 0-2 (send 2); the last it got was 0-1"},
		{"one in the middle is lost for one", 2, "r0 1,r0 2,r0 3,r1 1,r1 3,ack 1,ack 2,ack 3", want{owed: 6, kept: 5, lost: 1}, ledger.Counts{Delivered: 5, Skipped: 1}, "reader 1 never got 0-2 (send 2), though it got 0-3 after it"},
		{"lost for all, known by the acknowledgement", 2, "r0 1,r1 1,ack 1,ack 2", want{owed: 4, kept: 2, lost: 2}, ledger.Counts{Delivered: 2}, "nor did any reader beside it"},
		{"lost for all, known by the chain", 2, "r0 1,r0 3,r1 1,r1 3,ack 1,ack 2,ack 3", want{owed: 6, kept: 4, lost: 2}, ledger.Counts{Delivered: 4, Broken: 1, Skipped: 2}, "never got 0-2"},
		{"all but one missed it", 3, "r0 1,r0 3<1,r1 1,r1 2,r1 3,r2 1,r2 3<1,ack 1,ack 2,ack 3", want{owed: 9, kept: 7, lost: 2}, ledger.Counts{Delivered: 7, Skipped: 2}, "reader 0 never got 0-2"},
		{"late is lost to the client", 2, "r1 1,r1 2,r1 3,r0 1,r0 3,r0 2,ack 2", want{owed: 2, kept: 1, lost: 1, unacked: 4}, ledger.Counts{Delivered: 5, Skipped: 1, Reordered: 1}, "reader 0 never got 0-2"},
		{"late for all", 1, "r0 1,r0 3<1,r0 2,ack 1,ack 2,ack 3", want{owed: 3, kept: 2, lost: 1}, ledger.Counts{Delivered: 2, Skipped: 1, Reordered: 1}, "never got 0-2"},
		{"a resume brings what was lost on the wire", 2, "r1 1,r1 2,r1 3,r0 1,r0 3,r0 resume 1,r0 2,r0 3,ack 1,ack 2,ack 3", want{owed: 6, kept: 6}, ledger.Counts{Delivered: 6, Skipped: 1, Duplicates: 1}, ""},
		{"a resume that repeats the newer one first", 2, "r1 1,r1 2,r1 3,r0 1,r0 3,r0 resume 1,r0 3,r0 2,ack 1,ack 2,ack 3", want{owed: 6, kept: 5, lost: 1}, ledger.Counts{Delivered: 5, Skipped: 1, Duplicates: 1, Reordered: 1}, "reader 0 never got 0-2"},
		{"a resume repeats nothing", 1, "r0 1,r0 2,r0 resume 2,r0 3,ack 1,ack 2,ack 3", want{owed: 3, kept: 3}, ledger.Counts{Delivered: 3}, ""},
		{"a gap, paged", 2, "r1 1,r1 2,r1 3,r1 4,r0 1,r0 gap 3,r0 4,r0 page 2,r0 page 3,r0 paged 3,r0 resume 4,ack 1,ack 2,ack 3,ack 4", want{owed: 8, kept: 8}, ledger.Counts{Delivered: 6, Filled: 2, Gaps: 1}, ""},
		{"a gap, and history has not all of it", 2, "r1 1,r1 2,r1 3,r1 4,r0 1,r0 gap 3,r0 page 3,r0 paged 3,r0 4,ack 1,ack 2,ack 3,ack 4", want{owed: 8, kept: 7, noticed: 1}, ledger.Counts{Delivered: 6, Filled: 1, Gaps: 1}, ""},
		{"told of, and seen by another only later", 2, "r1 1,r0 gap 4,r0 4,r0 paged 4,r1 2,ack 1,ack 2,ack 4", want{owed: 6, kept: 2, lost: 1, noticed: 3}, ledger.Counts{Delivered: 2, Duplicates: 1, Gaps: 1}, "reader 1 never got 0-4"},
		{"a gap while another is being paged", 2, "r1 1,r1 2,r1 3,r1 4,r1 5,r1 6,r0 1,r0 gap 3,r0 gap 5<3,r0 page 2,r0 page 3,r0 paged 3,r0 6,r0 page 4,r0 page 5,r0 paged 5,r0 resume 6,ack 2,ack 5,ack 6", want{owed: 6, kept: 6, unacked: 6}, ledger.Counts{Delivered: 8, Filled: 4, Gaps: 2}, ""},
		{"a gap while another is being paged, and nobody else read", 1, "r0 1,r0 gap 3,r0 gap 5<3,r0 page 2,r0 page 3,r0 paged 3,r0 6,r0 page 4,r0 page 5,r0 paged 5,ack 2,ack 5,ack 6", want{owed: 3, kept: 3, unacked: 3}, ledger.Counts{Delivered: 2, Filled: 4, Gaps: 2, Broken: 1}, ""},
		{"until the second gap is paged the old position counts", 2, "r1 1,r1 2,r1 3,r1 4,r1 5,r0 1,r0 gap 3,r0 gap 5<3,r0 page 2,r0 page 3,r0 paged 3,r0 resume 1,ack 1", want{owed: 2, kept: 2, unacked: 6}, ledger.Counts{Delivered: 6, Filled: 2, Gaps: 2}, ""},
		{"a gap that begins after what the client has", 2, "r1 1,r1 2,r1 3,r1 4,r0 1,r0 gap 4<3,r0 page 2,r0 page 3,r0 page 4,r0 paged 4,ack 2", want{owed: 2, kept: 2, unacked: 6}, ledger.Counts{Delivered: 5, Filled: 3, Skipped: 2, Gaps: 1}, ""},
		{"until a gap is paged the old position counts", 1, "r0 1,r0 gap 3,r0 resume 1", want{}, ledger.Counts{Delivered: 1, Gaps: 1}, ""},
		{"a lost tail sets the filter back", 1, "r0 1,r0 2,r0 3,r0 gap 1,r0 paged 1,r0 5<1,r0 resume 5,ack 1,ack 5", want{owed: 2, kept: 2, unacked: 2}, ledger.Counts{Delivered: 4, Gaps: 1}, ""},
		{"never acknowledged, yet there", 1, "r0 1,r0 2,ack 1", want{owed: 1, kept: 1, unacked: 1}, ledger.Counts{Delivered: 2}, ""},
		{"one send, two entries", 2, "r0 1,r0 2=1,r1 1,r1 2=1,ack 2=1", want{owed: 2, kept: 2, unacked: 2, doubled: 1}, ledger.Counts{Delivered: 4}, "send 1 is in the log twice, as 0-1 and 0-2"},
		{"acknowledged under an ID that was lost, got under another", 1, "r0 1,ack 2=1", want{owed: 1, kept: 1}, ledger.Counts{Delivered: 1}, ""},
		{"got under another ID only", 2, "r0 1,r0 2=1,r1 1,ack 2=1", want{owed: 2, kept: 2, unacked: 2, doubled: 1}, ledger.Counts{Delivered: 3}, ""},
		{"acknowledged as another message", 1, "r0 1=9,ack 1", want{owed: 1, kept: 1, wrong: 1}, ledger.Counts{Delivered: 1}, "acknowledged for send 1 and delivered as send 9"},
		{"one delivery is not two", 1, "r0 1=2,ack 1,ack 2", want{owed: 2, kept: 1, lost: 1, wrong: 1}, ledger.Counts{Delivered: 1}, "never got 0-2 (send 2), nor did any reader beside it"},
		{"two readers, two messages under one ID", 2, "r0 1,r1 1=9,ack 1", want{owed: 2, kept: 2}, ledger.Counts{Delivered: 2, Wrong: 1}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, j := play(t, c.readers, strings.Split(c.lines, ",")...)
			got := want{j.Owed, j.Kept, j.Lost, j.Noticed, j.Unacked, j.Doubled, j.Wrong}
			if c.want == (want{}) {
				got = want{}
			}
			if got != c.want {
				t.Errorf("judgement\n got %+v\nwant %+v\n%v", got, c.want, j.Violations)
			}
			if s.book.Counts != c.counts {
				t.Errorf("counts\n got %+v\nwant %+v", s.book.Counts, c.counts)
			}
			if c.says == "" && j.Lost+j.Wrong+j.Doubled == 0 && len(j.Violations) > 0 || !strings.Contains(strings.Join(j.Violations, "\n"), c.says) {
				t.Errorf("violations %q, want one with %q", j.Violations, c.says)
			}
		})
	}
}

func TestEntriesUpToTheBaseAreNotOwed(t *testing.T) {
	var b ledger.Book
	id := b.Open(1, 5)
	if got := b.Arrive(id, 5, 4, 5); got != ledger.Duplicate {
		t.Errorf("the base itself: %v", got)
	}
	if got := b.Arrive(id, 6, 5, 6); got != ledger.New {
		t.Errorf("the first after it: %v", got)
	}
	if b.Position(id) != 6 || b.Counts.Broken != 0 {
		t.Errorf("position %v, %+v", b.Position(id), b.Counts)
	}
}

func TestMergeAddsUpAndKeepsTheFirstViolations(t *testing.T) {
	_, a := play(t, 1, "r0 1", "ack 1", "ack 2")
	_, b := play(t, 1, "r0 1", "r0 2", "ack 1", "ack 2")
	a.Merge(b)
	if a.Owed != 4 || a.Kept != 3 || a.Lost != 1 || len(a.Violations) != 1 {
		t.Errorf("%+v", a)
	}
}

// Processes see the same log where they have clients in the same room, and each its
// own where they have not.
func TestMergeCountsADoubledSendOnce(t *testing.T) {
	_, one := play(t, 1, "r0 1", "r0 2=1", "ack 1")
	_, same := play(t, 1, "r0 1", "r0 2=1", "r0 3=1", "ack 1")
	_, others := play(t, 1, "r0 5=5", "r0 6=5", "r0 7=6", "r0 8=6")
	var all ledger.Judgement
	for _, j := range []ledger.Judgement{one, same, others} {
		all.Merge(j)
	}
	if all.Doubled != 3 {
		t.Errorf("sends 1, 5 and 6 are in the logs more than once, counted as %d", all.Doubled)
	}
}

func TestPackKeepsOrder(t *testing.T) {
	ids := []protocol.ID{{}, {Ms: 0, Seq: 1}, {Ms: 5, Seq: 9}, {Ms: 5, Seq: 10}, {Ms: 1732281234567, Seq: 0}, {Ms: 1732281234567, Seq: 1<<20 - 1}}
	var last ledger.Pos
	for i, id := range ids {
		p, ok := ledger.Pack(id)
		if !ok || p.ID() != id || i > 0 && p <= last {
			t.Errorf("%v packed to %v, %v", id, p.ID(), ok)
		}
		last = p
	}
	for _, id := range []protocol.ID{{Ms: 1 << 44}, {Seq: 1 << 20}} {
		if _, ok := ledger.Pack(id); ok {
			t.Errorf("%v packed", id)
		}
	}
}

func BenchmarkArriveInOrder(b *testing.B) {
	var book ledger.Book
	const readers = 1000
	for range readers {
		book.Open(1, 0)
	}
	pos := ledger.Pos(0)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%readers == 0 {
			pos++
		}
		book.Arrive(ledger.ReaderID(n%readers), pos, pos-1, ledger.Send(pos))
	}
}
