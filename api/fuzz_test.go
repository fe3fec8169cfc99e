package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/madang-chat/madang/protocol"
)

// FuzzSendBody: whatever comes in, what goes out is one valid JSON event without
// a line break, and says the same when it is read again.
func FuzzSendBody(f *testing.F) {
	for _, seed := range []string{
		`{"type":"text","text":"hi","attachments":["a1"],"reply_to":"5-10","meta":{"a":[1,-2.5e3,true,null,"x"]}}`,
		`{"text":"\u0000\ud83d\ude00\n"}`, `{"meta":{"a" : {"b":"\\\"}" } },"type":"x.y_1"}`, `{"text":"가나다"}`, `null`, `{}`, `[`, `{"text":"a"} {`,
		`{"text":"a","meta":{"x":1e999}}`, `{"text":"a","text":"b"}`, `{"meta":null,"text":"a"}`, "{\"text\":\"\xff\"}", `{"text":"\ud800"}`,
	} {
		f.Add([]byte(seed))
	}
	at := time.UnixMilli(1_800_000_000_000)
	f.Fuzz(func(t *testing.T, body []byte) {
		m, err := parseMessage(bytes.Clone(body), 100)
		if err != nil {
			var p *problem
			if !errors.As(err, &p) || p.status != 400 || !utf8.ValidString(p.detail) || len(p.detail) > 300 {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		canonical := m.appendBody(nil)
		if !json.Valid(canonical) || bytes.ContainsAny(canonical, "\n\r") || !utf8.Valid(canonical) {
			t.Fatalf("%q became %q", body, canonical)
		}
		again, err := parseMessage(bytes.Clone(canonical), 100)
		if err != nil || !bytes.Equal(again.appendBody(nil), canonical) || again.Text != m.Text {
			t.Fatalf("%q became %q, then %q, %v", body, canonical, again.appendBody(nil), err)
		}
		tail, hash := m.appendTail(nil, "bob", at, "k")
		event := protocol.AppendMessage(nil, "r", protocol.ID{Ms: 1}, protocol.ID{}, 1, tail)
		var decoded struct {
			Body json.RawMessage `json:"body"`
			Key  string          `json:"key"`
		}
		if err := json.Unmarshal(event, &decoded); err != nil || !bytes.Equal(decoded.Body, canonical) || decoded.Key != "k" || len(hash) != 24 {
			t.Fatalf("%q became %s: %v", body, event, err)
		}
	})
}
