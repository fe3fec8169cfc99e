package api_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/testkit"
)

func TestOnlyServerKeysSetRetention(t *testing.T) {
	onRealStores(t, func(t *testing.T, w *world) {
		w.as("alice").post("/v1/rooms", `{"id":"yard"}`).want(201)
		const path = "/v1/rooms/yard/retention"
		w.server("").put(path, `{"messages":10,"age_s":60,"bytes":65536}`).want(204)
		w.server("bob").put(path, `{"age_s":0}`).want(204)
		w.server("").delete(path).want(204)
		for _, body := range []string{`{"messages":0}`, `{"messages":-1}`, `{"age_s":-1}`, `{"bytes":-1}`, `{"age_s":9223372036854775807}`, `{"messages":1e30}`, `{"days":3}`, `[]`} {
			if a := w.server("").put(path, body); a.status != 400 {
				t.Errorf("%s: %d %s", body, a.status, a.body)
			}
		}
		w.as("alice").put(path, `{"messages":10}`).wantCode(403, "forbidden")
		w.as("alice").delete(path).wantCode(403, "forbidden")
		w.nobody().delete(path).want(401)
		w.server("").put("/v1/rooms/none/retention", `{"messages":10}`).wantCode(404, "room_not_found")
	})
}

// A retry is told when its message was sent, not when it was retried, also after the
// log has it no more.
func TestARetryOfWhatWasTrimmed(t *testing.T) {
	r := testkit.Redis(t)
	w := newWorld(t, redisStore(t, r.URL()), nil)
	alice := w.as("alice").with("Idempotency-Key", "k")
	alice.post("/v1/rooms", `{"id":"trimmed"}`).want(201)
	first := alice.sends("trimmed", "hello").want(201)
	keys, err := r.Do("KEYS", "*:room:trimmed:log")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Do("DEL", keys.([]any)[0].(string)); err != nil {
		t.Fatal(err)
	}
	again := alice.sends("trimmed", "hello").want(200)
	ms, _ := strconv.ParseInt(first.field("id")[:strings.IndexByte(first.field("id"), '-')], 10, 64)
	if at := time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z"); again.field("sent_at") != at || again.field("id") != first.field("id") {
		t.Errorf("sent at %s:\n%s\n%s", at, first.body, again.body)
	}
}
