package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

// recorded is a sequence whose parts write down what is asked of them. A part
// whose name begins with "!" can't start, one with "?" can't stop.
func recorded(names ...string) (*sequence, *[]string) {
	var did []string
	s := &sequence{log: slog.New(slog.DiscardHandler)}
	for _, name := range names {
		s.parts = append(s.parts, part{
			name: name,
			start: func(context.Context) error {
				did = append(did, "start "+name)
				if name[0] == '!' {
					return errors.New("no")
				}
				return nil
			},
			stop: func(context.Context) error {
				did = append(did, "stop "+name)
				if name[0] == '?' {
					return errors.New("stuck")
				}
				return nil
			},
		})
	}
	return s, &did
}

func TestPartsStopInReverse(t *testing.T) {
	s, did := recorded("a", "?b", "c")
	if err := s.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := s.stop(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stopping ?b: stuck") {
		t.Errorf("stop says %v", err)
	}
	if err := s.stop(t.Context()); err != nil {
		t.Errorf("the second stop says %v", err)
	}
	want := []string{"start a", "start ?b", "start c", "stop c", "stop ?b", "stop a"}
	if !slices.Equal(*did, want) {
		t.Errorf("did %v, want %v", *did, want)
	}
}

func TestWhatStartedIsStoppedWhenAPartCanNotStart(t *testing.T) {
	s, did := recorded("a", "b", "!c", "d")
	err := s.start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "!c: no") {
		t.Errorf("start says %v", err)
	}
	want := []string{"start a", "start b", "start !c", "stop b", "stop a"}
	if !slices.Equal(*did, want) {
		t.Errorf("did %v, want %v", *did, want)
	}
}

func TestNothingStartsOnceItIsCancelled(t *testing.T) {
	s, did := recorded("a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("start says %v", err)
	}
	if len(*did) > 0 {
		t.Errorf("did %v", *did)
	}
}
