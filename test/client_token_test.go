package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/internal/config"
)

// A token that ends is exchanged for another on the WebSocket, which goes on: the
// timers that are longer than anything else's are the test's to run.
func TestTheClientRenewsItsToken(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	const renewing = `
		const timers = [], realTimeout = setTimeout, realClear = clearTimeout, realNow = Date.now;
		let passed = 0, asks = 0;
		Date.now = () => realNow() + passed;
		window.setTimeout = (f, ms) => ms < 30_000 ? realTimeout(f, ms) : -timers.push({ f, ms });
		window.clearTimeout = (id) => { if (id < 0) timers[-id - 1].f = null; else realClear(id); };
		const set = () => timers.filter((t) => t.f);
		const runs = async () => { // the only one
			is("timers", set().length, 1);
			const t = set()[0], f = t.f;
			t.f = null;
			passed += t.ms;
			await f();
		};
		const ending = (s) => "h." + btoa(JSON.stringify({ sub: "æ?>", exp: Math.floor(Date.now() / 1000) + s, n: ++asks })).replaceAll("=", "").replaceAll("/", "_").replaceAll("+", "-") + ".s";
		let token = async () => ending(600);
		client.close();
		const begins = async () => {
			sockets.length = 0;
			const c = new Client({ api: "", ws: "ws://gateway/v1/ws", token: () => token() });
			c.on("fault", () => events.push("fault"));
			c.connect();
			await until("a socket", () => sockets.length === 1);
			await new Promise((done) => realTimeout(done, 20)); // it opens
			hello(10);
			sockets[0].tells({ type: "resumed", rooms_rev: 10 });
			sockets[0].said.length = 0;
			return c;
		};
		const near = (what, ms, from, to) => { if (!(ms >= from && ms <= to)) throw new Error(what + ": " + ms); };
	`
	for name, script := range map[string]string{
		"before it ends, and again": `
			const auths = [];
			window.fetch = async (_, { headers }) => { auths.push(headers.Authorization); return new Response("{}"); };
			const c = await begins();
			for (let n = 1; n <= 3; n++) {
				near("when", set()[0].ms, 475_000, 545_000);
				await runs();
				is("said", sockets[0].said.length, n);
			}
			is("kinds", sockets[0].said.map((s) => s.type), ["auth", "auth", "auth"]);
			is("tokens asked for", asks, 4);
			await c.room("r");
			is("of requests", auths, ["Bearer " + sockets[0].said[2].token]);
			is("sockets", sockets.length, 1);
			c.close();
			is("timers", set().length, 0);
		`,
		"with the one that a request has fetched": `
			const c = await begins();
			let refused = true;
			window.fetch = async () => new Response("{}", { status: refused && !(refused = false) ? 401 : 200 });
			passed = 60_000;
			await c.room("r");
			is("tokens asked for", asks, 2);
			passed = 0;
			await runs();
			is("tokens asked for", asks, 2);
			is("said", sockets[0].said.length, 1);
		`,
		"though the first answer is none": `
			token = async () => ending(100_000);
			const c = await begins();
			asks = 0;
			for (const answer of [async () => { throw new TypeError("Failed to fetch"); }, async () => null, async () => "no token"]) {
				token = () => { asks++; return answer(); };
				await runs();
			}
			is("asked", asks, 3);
			is("said", sockets[0].said, []);
			is("state", c.state, "online");
			is("faults", events.includes("fault"), false);
		`,
		"a few times, while none comes that ends later": `
			const same = ending(100_000);
			token = async () => { asks++; return same; };
			const c = await begins();
			asks = 0;
			while (set().length) await runs();
			near("asked", asks, 4, 6);
			is("said", sockets[0].said, []);
			c.close(); // what is left of it is seconds
		`,
		"of a socket that is there no more by then": `
			const c = await begins();
			let answer;
			token = () => new Promise((done) => { answer = done; });
			const renewed = runs();
			await until("the question", () => answer);
			sockets[0].onclose({ code: 1006 });
			token = async () => ending(600);
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			answer(ending(700));
			await renewed;
			is("said", sockets.map((s) => s.said.filter((f) => f.type === "auth").length), [0, 0]);
			is("timers", set().length, 1);
		`,
		"not where that can't be known, or said": `
			for (const t of ["opaque", "h." + btoa("{}") + ".s", ending(-5), ending(1), ending(40 * 86_400)]) {
				token = async () => t;
				await begins();
				is("timers", set().length, 0);
			}
			token = async () => ending(600);
			let streams = 0;
			window.fetch = async () => { streams++; return new Response(new ReadableStream({})); };
			new Client({ api: "", ws: "ws://gateway/v1/ws", token: () => token(), transport: "sse" }).connect();
			await until("a stream", () => streams);
			is("timers", set().length, 0);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(renewing + script) })
	}
}

// However many requests need another token, there is one question for it.
func TestTheClientAsksForATokenOnce(t *testing.T) {
	openTab(t, browser(t), 600, 400, startDev(t).URL()).plays(`
		let asks = 0, answered = true, old = "Bearer 1";
		window.fetch = async (_, { headers }) => new Response("{}", { status: headers.Authorization === old ? 401 : 200 });
		const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => {
			asks++;
			await new Promise((done) => setTimeout(done, 20));
			if (!answered) throw new TypeError("Failed to fetch");
			return String(asks);
		} });
		const some = () => Promise.all(Array.from({ length: 20 }, () => other.room("r")));
		await some(); // the first is refused, too
		is("asked", asks, 2);
		old = "Bearer 2";
		await some();
		is("asked", asks, 3);
		old = "Bearer 3";
		answered = false;
		is("without one", await some().catch((err) => err.name), "TypeError");
		answered = true;
		await some();
		is("asked", asks, 5);
	`)
}

// A gateway takes the other token, and the connection outlives the first.
func TestAConnectionGoesOnWithAnotherToken(t *testing.T) {
	t.Parallel() // it waits, mostly: what is left of a token when it is renewed is a tenth of its life
	secret := strings.Repeat("x", 32)
	dev := startDev(t, func(c *config.Dev) { c.JWTSecret = secret })
	p := openTab(t, browser(t), 600, 400, dev.URL())
	var tokens []any
	for _, life := range []time.Duration{12 * time.Second, time.Hour} { // from here on: a browser takes its time to start
		token, err := auth.Mint([]byte(secret), "alice", life, auth.MintOptions{})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	p.does(chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`(async () => {
		const { Client } = await import("/client.js");
		const { ws } = await (await fetch("/dev/config.json")).json();
		const tokens = [%q, %q], states = [], ends = JSON.parse(atob(tokens[0].split(".")[1])).exp * 1000;
		const c = new Client({ api: "", ws, token: async () => tokens.shift() });
		c.on("state", ({ state }) => states.push(state));
		c.on("fault", (err) => states.push(String(err)));
		c.connect();
		await new Promise((done) => setTimeout(done, ends + 2_000 - Date.now()));
		if (String(states) !== "connecting,online" || tokens.length) throw new Error(states + ", tokens left: " + tokens.length);
	})()`, tokens...), chromedp.EvalAwaitPromise))
}
