package crew_test

import (
	"encoding/gob"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/crew"
)

// process is a worker that is ready when told, and reports from then on.
type process struct {
	io.Reader
	end io.Closer
}

func (p process) Write(b []byte) (int, error) { return len(b), nil }
func (p process) Finish()                     { p.end.Close() }
func (p process) Kill()                       { p.end.Close() }
func (p process) End() string                 { return "ended" }

// place starts one; begin is asked before it says that it is ready.
type place struct {
	begin func()
	said  *atomic.Int64 // reports
}

func (p place) Start(int) (crew.Process, error) {
	r, w := io.Pipe()
	go func() { // until the pipe is closed
		p.begin()
		enc := gob.NewEncoder(w)
		for seq := uint64(1); enc.Encode(crew.Report{Seq: seq}) == nil; seq = 0 {
			p.said.Add(1)
			time.Sleep(time.Millisecond)
		}
	}()
	return process{r, w}, nil
}

// A worker that is ready and reports does not stand in for one that is not.
func TestStartWaitsForEachWorker(t *testing.T) {
	var fast, slow atomic.Int64
	wait := func() { // for many reports of the other
		for fast.Load() < 20 {
			time.Sleep(time.Millisecond)
		}
	}
	c, err := crew.Start([]crew.Place{place{func() {}, &fast}, place{wait, &slow}}, make([]crew.Job, 2))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Stop()
	if fast.Load() < 20 {
		t.Error("Start returned before all were ready")
	}
}
