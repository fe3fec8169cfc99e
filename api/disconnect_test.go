package api_test

import "testing"

func TestOnlyServerKeysDisconnect(t *testing.T) {
	onRealStores(t, func(t *testing.T, w *world) {
		w.server("").post("/v1/users/bob/disconnect", "").want(200).wantField("user", "bob")
		w.server("alice").post("/v1/users/d%20%C3%A9/disconnect", "").want(200).wantField("user", "d é")
		w.server("").post("/v1/users/%00/disconnect", "").wantCode(400, "invalid")
		w.as("bob").post("/v1/users/bob/disconnect", "").wantCode(403, "forbidden")
		w.nobody().post("/v1/users/bob/disconnect", "").want(401)
	})
}
