package fifo_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/madang-chat/madang/gateway/fifo"
)

func TestWhatIsPushedComesOutInOrder(t *testing.T) {
	var q fifo.Queue[int]
	pushed, popped := 0, 0
	for range 200 { // floods and ebbs, of more than an empty queue keeps
		for range rand.IntN(5000) {
			q.Push(pushed)
			pushed++
		}
		for range rand.IntN(5000) {
			v, ok := q.Pop()
			if ok != (popped < pushed) || ok && v != popped {
				t.Fatalf("took %d, %t; %d were pushed, %d taken", v, ok, pushed, popped)
			}
			if ok {
				popped++
			}
		}
		if q.Len() != pushed-popped {
			t.Fatalf("length %d, want %d", q.Len(), pushed-popped)
		}
	}
}

func TestWhatIsDueComesOutAndNothingElse(t *testing.T) {
	var q fifo.Timed[string]
	q.Push(1, "a")
	q.Push(2, "b")
	q.Push(4, "later")
	if got := slices.Collect(q.Due(0)); got != nil {
		t.Errorf("too soon: %q", got)
	}
	for v := range q.Due(3) {
		if v != "a" {
			t.Fatalf("%q came first", v)
		}
		break // the rest stays
	}
	if got, want := slices.Collect(q.Due(3)), []string{"b"}; !slices.Equal(got, want) {
		t.Errorf("due: %q, want %q", got, want)
	}
}
