package deflate_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/deflate"
)

const (
	answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	bits   = "; server_max_window_bits="
)

func TestChoose(t *testing.T) {
	const pmd = "permessage-deflate"
	for offers, want := range map[string]string{ // "": declined
		"":                                   "",
		" , ,":                               "",
		pmd:                                  answer,
		" " + pmd + " ":                      answer,
		pmd + "; server_no_context_takeover": answer,
		pmd + "; client_no_context_takeover": answer,
		pmd + ";client_no_context_takeover;server_no_context_takeover": answer,
		pmd + "; client_max_window_bits":                               answer,
		pmd + "; client_max_window_bits=15":                            answer,
		pmd + "; client_max_window_bits=8":                             answer,
		pmd + `; client_max_window_bits="10"`:                          answer,
		pmd + " ; client_max_window_bits = 10":                         answer,
		pmd + "; server_max_window_bits=15":                            answer + bits + "15",
		pmd + "; server_max_window_bits=9":                             answer + bits + "9",
		pmd + "; server_max_window_bits=8":                             answer + bits + "8",
		pmd + `; server_max_window_bits="12"; client_max_window_bits`:  answer + bits + "12",
		"x-webkit-deflate-frame, " + pmd:                               answer,
		"foo; a=b; c, " + pmd + ", bar":                                answer,
		pmd + "; server_max_window_bits=10, " + pmd:                    answer + bits + "10", // the client's order is its preference

		// Declined, for the next one or for none.
		"foo":                              "",
		"Permessage-Deflate":               "", // names are compared as they are
		"x-webkit-deflate-frame":           "",
		pmd + "; server_max_window_bits":   "",
		pmd + "; server_max_window_bits=7": "", pmd + "; server_max_window_bits=16": "", pmd + "; server_max_window_bits=08": "",
		pmd + "; server_max_window_bits=1": "", pmd + "; server_max_window_bits=100": "", pmd + "; server_max_window_bits=x": "",
		pmd + "; client_max_window_bits=7": "", pmd + "; client_max_window_bits=16": "", pmd + "; client_max_window_bits=010": "",
		pmd + "; server_no_context_takeover=1":                                     "",
		pmd + "; client_no_context_takeover=true":                                  "",
		pmd + "; unknown":                                                          "",
		pmd + "; server_no_context_takeover; server_no_context_takeover":           "",
		pmd + "; server_max_window_bits=10; server_max_window_bits=10":             "",
		pmd + "; client_max_window_bits; client_max_window_bits=10":                "",
		pmd + "; server_max_window_bits=16, " + pmd + "; unknown, " + pmd:          answer,
		pmd + "; client_max_window_bits=99, " + pmd + "; server_max_window_bits=9": answer + bits + "9",
	} {
		params, ok := deflate.Choose([]byte(offers))
		if !ok {
			t.Errorf("%q: malformed", offers)
			continue
		}
		got := ""
		if params.Agreed() {
			got = string(params.AppendAnswer(nil))
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", offers, got, want)
		}
	}
}

func TestMalformedOffers(t *testing.T) {
	for _, offers := range []string{
		";", "permessage-deflate;", "permessage-deflate;;", "permessage-deflate; =8", "permessage-deflate; a=", "permessage-deflate a",
		`permessage-deflate; a="`, `permessage-deflate; a="b`, `permessage-deflate; a=""`, `permessage-deflate; a="b c"`, `permessage-deflate; a="b"c`,
		"permessage-deflate, ;", "a b", "a=b", "permessage-deflate; a=b=c", "(x)", "\x00", "permessage-deflate; a=\x80", "permessage-deflate/1",
	} {
		if params, ok := deflate.Choose([]byte(offers)); ok || params.Agreed() {
			t.Errorf("%q was accepted: %+v", offers, params)
		}
	}
}

// Ten thousand offers take as long as their bytes, and no memory.
func TestManyOffersAreReadInLinearTime(t *testing.T) {
	bad := "permessage-deflate; server_max_window_bits=16; client_max_window_bits; x=\"y\""
	header := []byte(strings.Repeat(bad+", ", 10_000) + "permessage-deflate")
	began := time.Now()
	params, ok := deflate.Choose(header)
	if took := time.Since(began); took > time.Second { // it is a few milliseconds
		t.Errorf("%d bytes took %v", len(header), took)
	}
	if !ok || !params.Agreed() {
		t.Errorf("got %+v, %v", params, ok)
	}
	if n := testing.AllocsPerRun(5, func() { deflate.Choose(header) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzChoose: what is agreed on was offered, and the answer is read back as
// itself.
func FuzzChoose(f *testing.F) {
	f.Add([]byte("permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate"))
	f.Add([]byte(`a; b="c", permessage-deflate; server_max_window_bits="8"`))
	f.Add([]byte("permessage-deflate;;"))
	f.Fuzz(func(t *testing.T, header []byte) {
		before := string(header)
		params, ok := deflate.Choose(header)
		if string(header) != before {
			t.Fatal("the header was changed")
		}
		if !params.Agreed() {
			return
		}
		if !ok || !bytes.Contains(header, []byte("permessage-deflate")) || params.WindowBits < deflate.MinWindowBits || params.WindowBits > deflate.MaxWindowBits {
			t.Fatalf("%q: %+v, %v", header, params, ok)
		}
		back, ok := deflate.Choose(params.AppendAnswer(nil))
		if !ok || back.WindowBits != params.WindowBits {
			t.Fatalf("%+v was read back as %+v", params, back)
		}
		if params.WindowBits < deflate.MaxWindowBits && !bytes.Contains(header, fmt.Append(nil, params.WindowBits)) {
			t.Fatalf("%q: nobody asked for %d", header, params.WindowBits)
		}
	})
}
