package test

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// clientWorld is a gateway and an API that a page's client talks to, as scripts:
// what they say is said by the test.
const clientWorld = `
	const { Client, compareIDs } = await import("/client.js");
	const sockets = [], log = [], asked = [];
	let gone = false; // the room
	let down = false; // the API
	window.WebSocket = class {
		constructor(url) { this.url = String(url); this.readyState = 1; this.said = []; sockets.push(this); setTimeout(() => this.onopen(), 0); }
		send(s) { this.said.push(JSON.parse(s)); }
		close() { this.readyState = 3; }
		tells(...events) { this.onmessage({ data: events.map((e) => JSON.stringify(e)).join("\n") }); }
	};
	window.fetch = async (path, { method }) => {
		const url = new URL(path, location.href), q = url.searchParams;
		asked.push(url.pathname + url.search);
		const answer = (status, body) => new Response(JSON.stringify(body), { status });
		if (down) throw new TypeError("Failed to fetch");
		if (gone) return answer(404, { code: "room_not_found" });
		let all = log.map((m, i) => ({ ...m, prev: log[i - 1]?.id ?? "0-0", n: i + 1 })), limit = Number(q.get("limit"));
		if (q.has("after")) all = all.filter((m) => compareIDs(m.id, q.get("after")) > 0);
		else all = all.filter((m) => !q.has("before") || compareIDs(m.id, q.get("before")) < 0).reverse();
		return answer(200, { messages: all.slice(0, limit), more: all.length > limit });
	};
	const client = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => "jwt" });
	const got = [], events = [];
	client.on("message", (m) => got.push(m.id));
	for (const kind of ["rooms", "left", "joined", "filled", "fault"]) client.on(kind, (e) => events.push(kind));
	const until = async (what, f) => {
		for (let i = 0; !f(); i++) {
			if (i > 500) throw new Error("waited in vain for " + what + ": got " + JSON.stringify({ got, events, asked, positions: client.positions }));
			await new Promise((done) => setTimeout(done, 5));
		}
	};
	const is = (what, a, b) => {
		if (JSON.stringify(a) !== JSON.stringify(b)) throw new Error(what + ": " + JSON.stringify(a) + ", want " + JSON.stringify(b));
	};
	const message = (id) => ({ type: "message", room: "r", id, from: "bob", body: { text: id } });
	const append = (...ids) => { log.push(...ids.map(message)); };
	const live = (id) => { append(id); sockets.at(-1).tells({ ...log.at(-1), prev: log.at(-2)?.id ?? "0-0" }); };
	const told = (...ids) => ids.map((id) => ({ ...message(id), prev: log[log.findIndex((m) => m.id === id) - 1]?.id ?? "0-0" }));
	const hello = (rev) => sockets.at(-1).tells({ type: "hello", user: "me", rooms_rev: rev, heartbeat_s: 25 });
	client.connect();
	await until("a socket", () => sockets.length === 1);
	await until("its opening", () => sockets[0].said.length === 1);
	hello(10);
	sockets[0].tells({ type: "resumed", rooms_rev: 10 });
	is("what it says", sockets[0].said, [{ type: "resume", rooms: {} }]);
	sockets[0].said.length = 0;
	sockets[0].tells({ type: "joined", room: "r", user: "me", head: "0-0", rooms_rev: 11 });
`

// plays runs a script in a tab, beside clientWorld.
func (p *tab) plays(script string) {
	p.t.Helper()
	p.does(chromedp.Evaluate[chromedp.Void](`(async () => {`+clientWorld+script+`})()`, chromedp.EvalAwaitPromise))
}

// What web/client.js does when Redis has lost something, played by a script
// instead of a failover.
func TestTheClientWhenRedisHasLostSomething(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	for name, script := range map[string]string{
		// A failover took 4-0 and 5-0 back. What was said since has lower IDs than
		// what the client has, because the new primary's clock is behind.
		"the head is before the position": `
			for (const id of ["1-0", "2-0", "3-0", "4-0", "5-0"]) live(id);
			log.length = 3;
			append("3-1", "3-2");
			sockets[0].tells({ type: "gap", room: "r", after: "5-0", head: "3-2" });
			await until("the gap filled", () => events.includes("filled"));
			is("what came", got, ["1-0", "2-0", "3-0", "4-0", "5-0", "3-1", "3-2"]);
			is("position", client.positions, { r: "3-2" });
			live("4-7"); // still before what it had
			is("what is new", got.at(-1), "4-7");
			is("position", client.positions, { r: "4-7" });
		`,
		"the head is after the position, which is lost too": `
			for (const id of ["1-0", "2-0", "4-0"]) live(id);
			log.length = 2;
			append("3-0", "5-0");
			sockets[0].tells({ type: "gap", room: "r", after: "4-0", head: "5-0" });
			await until("the gap filled", () => events.includes("filled"));
			is("what came", got, ["1-0", "2-0", "4-0", "3-0", "5-0"]);
		`,
		"more was said since than a page holds": `
			for (const id of ["1-0", "2-0", "9000-0"]) live(id);
			log.length = 2;
			const since = Array.from({ length: 250 }, (_, i) => (i + 10) + "-0");
			append(...since);
			sockets[0].tells({ type: "gap", room: "r", after: "9000-0", head: "259-0" });
			await until("the gap filled", () => events.includes("filled"));
			is("what came", got, ["1-0", "2-0", "9000-0", ...since]);
		`,
		"the room is gone": `
			live("1-0");
			log.length = 0;
			gone = true;
			sockets[0].tells({ type: "gap", room: "r", after: "1-0", head: "0-0" });
			await until("an end of it", () => events.includes("filled"));
			is("position", client.positions, { r: "0-0" }); // not one that the log may never reach
			gone = false;
			live("0-5");
			is("what is new", got, ["1-0", "0-5"]);
		`,
		"more was missed than a resume pushes": `
			live("1-0");
			append("2-0", "3-0", "4-0");
			sockets[0].tells({ type: "gap", room: "r", after: "1-0", head: "4-0" });
			await until("the gap filled", () => events.includes("filled"));
			is("what came", got, ["1-0", "2-0", "3-0", "4-0"]);
			is("requests", asked.length, 1);
		`,
		"another gap is told while one is filled": `
			live("1-0");
			append("2-0", "3-0");
			sockets[0].tells({ type: "gap", room: "r", after: "1-0", head: "3-0" });
			live("4-0");
			append("5-0", "6-0");
			sockets[0].tells({ type: "gap", room: "r", after: "4-0", head: "6-0" });
			live("7-0");
			await until("the gaps filled", () => got.at(-1) === "7-0");
			is("what came", got, ["1-0", "2-0", "3-0", "4-0", "5-0", "6-0", "7-0"]);
			is("position", client.positions, { r: "7-0" });
		`,
		"a gap from before what was paged, of a connection that begins while it is": `
			live("1-0");
			append("2-0", "3-0");
			const real = window.fetch, answers = [];
			window.fetch = async (...asked) => { await new Promise((done) => answers.push(done)); return real(...asked); };
			sockets[0].tells({ type: "gap", room: "r", after: "1-0", head: "3-0" });
			await until("history asked", () => answers.length === 1);
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			is("what it says", sockets[1].said, [{ type: "resume", rooms: { r: "1-0" } }]);
			answers[0]();
			await until("what was missed", () => got.length === 3);
			append("4-0");
			window.fetch = real;
			hello(11);
			sockets[1].tells({ type: "gap", room: "r", after: "1-0", head: "4-0" }, { type: "resumed", rooms_rev: 11 });
			await until("the rest", () => got.at(-1) === "4-0");
			is("what came", got, ["1-0", "2-0", "3-0", "4-0"]);
			is("position", client.positions, { r: "4-0" });
		`,
		"another gap of a room that no list has told of yet": `
			append("1-0", "2-0", "3-0");
			sockets[0].tells({ type: "gap", room: "s", after: "1-0", head: "3-0" });
			append("4-0");
			sockets[0].tells({ ...told("4-0")[0], room: "s" });
			append("5-0", "6-0");
			sockets[0].tells({ type: "gap", room: "s", after: "4-0", head: "6-0" });
			await until("the gaps filled", () => got.at(-1) === "6-0");
			is("what came", got, ["2-0", "3-0", "4-0", "5-0", "6-0"]);
		`,
		"its own leaving comes without a revision": `
			live("1-0");
			sockets[0].tells({ type: "left", room: "r", user: "bob" });
			is("somebody else's leaving", client.positions, { r: "1-0" });
			sockets[0].tells({ type: "left", room: "r", user: "me" });
			is("positions", client.positions, {});
			sockets[0].tells({ type: "left", room: "r", user: "me", rooms_rev: 12 });
			is("events", events.filter((e) => e === "rooms").length, 1); // of the first hello
		`,
		"a room is left while a gap in it is filled": `
			live("1-0");
			append("2-0", "3-0");
			sockets[0].tells({ type: "gap", room: "r", after: "1-0", head: "3-0" }, { type: "left", room: "r", user: "me" });
			await until("history asked", () => asked.length === 1);
			await new Promise((done) => setTimeout(done, 50));
			is("what came", got, ["1-0"]);
		`,
		"a revision is lower than its own": `
			is("rooms listed", events.filter((e) => e === "rooms").length, 1);
			sockets[0].tells({ type: "joined", room: "s", user: "me", head: "0-0", rooms_rev: 12 });
			is("rooms listed", events.filter((e) => e === "rooms").length, 1);
			sockets[0].tells({ type: "joined", room: "x", user: "me", head: "0-0", rooms_rev: 3 });
			is("rooms listed again", events.filter((e) => e === "rooms").length, 2);
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2);
			hello(2);
			is("rooms listed at hello", events.filter((e) => e === "rooms").length, 3);
			sockets[1].tells({ type: "resumed", rooms_rev: 1 });
			is("rooms listed at resumed", events.filter((e) => e === "rooms").length, 4);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(script) })
	}
}

// An API that is away for longer than the client asks it: what is missing comes
// when it can be had, and what came meanwhile does not come again.
func TestTheClientWhenHistoryIsNotToBeHad(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	const unfilled = `
		Math.random = () => 0; // no pauses
		for (const id of ["1-0", "2-0"]) live(id);
		append("3-0", "4-0");
		down = true;
		sockets[0].tells({ type: "gap", room: "r", after: "2-0", head: "4-0" });
		await until("an end of it", () => events.includes("fault"));
		live("5-0");
		is("what came", got, ["1-0", "2-0", "5-0"]);
		is("position", client.positions, { r: "2-0" });
	`
	for name, script := range map[string]string{
		"the next resume brings it": `
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			is("what it says", sockets[1].said, [{ type: "resume", rooms: { r: "2-0" } }]);
			hello(11);
			sockets[1].tells(...told("3-0", "4-0", "5-0"), { type: "resumed", rooms_rev: 11 });
			live("6-0");
			is("what came", got, ["1-0", "2-0", "5-0", "3-0", "4-0", "6-0"]);
			is("position", client.positions, { r: "6-0" });
		`,
		"the next gap is filled from where that one began": `
			down = false;
			append("6-0", "7-0");
			sockets[0].tells({ type: "gap", room: "r", after: "5-0", head: "7-0" });
			await until("the gaps filled", () => got.includes("7-0"));
			is("what came", got, ["1-0", "2-0", "5-0", "3-0", "4-0", "6-0", "7-0"]);
			is("position", client.positions, { r: "7-0" });
		`,
		"a failover has taken the position back meanwhile": `
			down = false;
			log.splice(1, 1);
			sockets[0].tells({ type: "gap", room: "r", after: "5-0", head: "5-0" });
			await until("the gap filled", () => got.includes("4-0"));
			is("what came", got, ["1-0", "2-0", "5-0", "3-0", "4-0"]);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(unfilled + script) })
	}
}

// A listener that throws is the page's mistake, and costs it nothing else: not the
// rest of a frame, of a page of history, or the stream of events.
func TestTheClientWhenAListenerThrows(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	const throws = `
		let uncaught = 0;
		addEventListener("error", (e) => { uncaught++; e.preventDefault(); });
		client.on("message", (m) => { throw new Error("of the page: " + m.id); });
	`
	for name, script := range map[string]string{
		"what shares a frame with it comes": `
			append("1-0", "2-0", "3-0");
			sockets[0].tells(...told("1-0", "2-0", "3-0"), { type: "left", room: "r", user: "me" });
			await until("the errors told", () => uncaught === 3);
			is("what came", got, ["1-0", "2-0", "3-0"]);
			is("events", events, ["rooms", "joined", "left"]);
		`,
		"a hole is filled": `
			append("1-0", "2-0", "3-0");
			sockets[0].tells({ type: "gap", room: "r", after: "0-0", head: "3-0" });
			await until("the gap filled", () => events.includes("filled"));
			is("what came", got, ["1-0", "2-0", "3-0"]);
			is("position", client.positions, { r: "3-0" });
			is("events", events, ["rooms", "joined", "filled"]);
		`,
		"a stream of events goes on": `
			let streams = 0, tell;
			window.fetch = async () => {
				streams++;
				return new Response(new ReadableStream({ start(c) { tell = (e) => c.enqueue(new TextEncoder().encode("data: " + JSON.stringify(e) + "\n\n")); } }));
			};
			const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => "jwt", transport: "sse" }), came = [];
			other.on("message", (m) => { came.push(m.id); throw new Error("of the page"); });
			other.connect();
			await until("a stream", () => tell);
			tell({ type: "hello", user: "me", rooms_rev: 1, heartbeat_s: 25 });
			append("1-0", "2-0");
			for (const m of told("1-0", "2-0")) tell(m);
			await until("both", () => came.length === 2);
			is("streams", streams, 1);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(throws + script) })
	}
}

// What is not what a gateway says, and what is said to a client that was closed.
func TestTheClientAndFramesThatAreNone(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	garbled := func(data string) string {
		return `
			append("1-0", "2-0");
			sockets[0].onmessage({ data: [JSON.stringify(told("1-0")[0]), ` + data + `, JSON.stringify(told("2-0")[0])].join("\n") });
			is("events", events, ["rooms", "joined", "fault"]);
			is("socket", sockets[0].readyState, 3);
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			is("what it says", sockets[1].said, [{ type: "resume", rooms: { r: "1-0" } }]);
			hello(11);
			sockets[1].tells(...told("2-0"), { type: "resumed", rooms_rev: 11 });
			is("what came", got, ["1-0", "2-0"]);
			is("state", client.state, "online");
		`
	}
	for name, script := range map[string]string{
		"no JSON":           garbled(`"<html>"`),
		"no object":         garbled(`"null"`),
		"no message":        garbled(`'{"type":"message","room":"r"}'`),
		"half of an object": garbled(`'{"type":"message","room":"r","id":"2-'`),
		"a binary frame": `
			sockets[0].onmessage({ data: new Blob(["x"]) });
			await until("it back", () => sockets.length === 2);
		`,
		"it is closed when it hears hello": `
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2);
			client.on("hello", () => client.close());
			hello(12);
			is("state", client.state, "offline");
			is("events", events, ["rooms", "joined"]);
		`,
		"it is closed in the middle of a frame": `
			client.on("message", () => client.close());
			append("1-0", "2-0");
			sockets[0].tells(...told("1-0", "2-0"));
			is("what came", got, ["1-0"]);
			client.connect();
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			is("what it says", sockets[1].said, [{ type: "resume", rooms: { r: "1-0" } }]);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(script) })
	}
}

// How the client comes back, and when.
func TestTheClientComesBack(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	for name, script := range map[string]string{
		"once, when it is asked to while it waits": `
			Math.random = () => 0.2; // 100 ms
			sockets[0].onclose({ code: 1006 });
			is("state", client.state, "waiting");
			client.connect();
			await until("it back", () => sockets.length === 2);
			await new Promise((done) => setTimeout(done, 300));
			is("sockets", sockets.length, 2);
		`,
		"and is the page's no more when it is closed": `
			const heard = new Map([[window, new Set()], [document, new Set()]]);
			for (const [target, kinds] of heard) {
				const add = target.addEventListener, remove = target.removeEventListener;
				target.addEventListener = (kind, ...how) => {
					if (["online", "visibilitychange"].includes(kind)) kinds.add(kind); // the page listens to more
					add.call(target, kind, ...how);
				};
				target.removeEventListener = (kind, ...how) => { kinds.delete(kind); remove.call(target, kind, ...how); };
			}
			const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => "jwt" });
			for (let n = 2; n <= 3; n++) {
				other.connect();
				await until("a socket", () => sockets.length === n);
				is("listens to", [...heard.values()].map((kinds) => [...kinds]), [["online"], ["visibilitychange"]]);
				other.close();
				is("listens to", [...heard.values()].map((kinds) => kinds.size), [0, 0]);
			}
		`,
		"not, when it is closed by who hears that it waits": `
			Math.random = () => 0;
			client.on("state", ({ state }) => state === "waiting" && client.close());
			sockets[0].onclose({ code: 1006 });
			is("state", client.state, "offline");
			await new Promise((done) => setTimeout(done, 50));
			is("sockets", sockets.length, 1);
		`,
		"once, when it is asked to by who hears that it waits": `
			Math.random = () => 0;
			client.on("state", ({ state }) => state === "waiting" && client.connect());
			sockets[0].onclose({ code: 1006 });
			await new Promise((done) => setTimeout(done, 50));
			is("sockets", sockets.length, 2);
		`,
		"by its own time again, after one that was told": `
			Math.random = () => 0;
			sockets[0].tells({ type: "bye", reason: "drain", retry_in_ms: 1e9 });
			sockets[0].onclose({ code: 4012 });
			await new Promise((done) => setTimeout(done, 50));
			is("sockets", sockets.length, 1);
			client.close();
			client.connect();
			await until("it back", () => sockets.length === 2);
			sockets[1].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 3);
		`,
		"with a send whose body was too slow": `
			const real = window.fetch, keys = [];
			window.fetch = async (path, init) => {
				keys.push(init.headers["Idempotency-Key"]);
				return keys.length < 3 ? new Response('{"code":"malformed"}', { status: 408 }) : real(path, init);
			};
			Math.random = () => 0;
			await client.send("r", { text: "hi" });
			is("keys", keys, [keys[0], keys[0], keys[0]]);
		`,
		"once, when more comes behind a hole than it holds": `
			live("1-0");
			append("2-0");
			const real = window.fetch;
			let answer;
			window.fetch = async (...asked) => { await new Promise((done) => { answer = done; }); return real(...asked); };
			sockets[0].tells({ type: "gap", room: "r", after: "1-0", head: "2-0" });
			const many = Array.from({ length: 5001 }, (_, i) => (i + 3) + "-0");
			for (const id of many) live(id);
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			hello(11);
			live("6000-0");
			live("6001-0");
			is("socket", sockets[1].readyState, 1);
			sockets[1].tells({ type: "gap", room: "r", after: "1-0", head: "6001-0" }, { type: "resumed", rooms_rev: 11 });
			window.fetch = real;
			answer();
			await until("all of it", () => got.at(-1) === "6001-0");
			is("what came", got, ["1-0", "2-0", ...many, "6000-0", "6001-0"]);
		`,
		"later each time, until it has resumed": `
			Math.random = () => 0.01;
			const waits = [];
			client.on("state", ({ state, retryInMs }) => state === "waiting" && waits.push(retryInMs));
			for (let n = 1; n <= 4; n++) {
				sockets.at(-1).onclose({ code: 1006 });
				await until("it back", () => sockets.length === n + 1 && sockets[n].said.length);
				hello(11);
				if (n === 3) sockets[n].tells({ type: "resumed", rooms_rev: 11 });
			}
			is("waits", waits, [5, 10, 20, 5]);
		`,
		"later each time, while its token is revoked and no other comes": `
			Math.random = () => 0.01;
			const waits = [];
			client.on("state", ({ state, retryInMs }) => state === "waiting" && waits.push(retryInMs));
			const revoked = () => {
				sockets.at(-1).tells({ type: "bye", reason: "revoked", retry_in_ms: 0 });
				sockets.at(-1).onclose({ code: 4001 });
			};
			revoked();
			for (let n = 1; n <= 3; n++) {
				await until("it back", () => sockets.length === n + 1 && sockets[n].said.length);
				if (n === 2) hello(11);
				revoked();
			}
			is("waits", waits, [0, 5, 10, 20]);
			window.dispatchEvent(new Event("online"));
			is("state", client.state, "connecting");
		`,
		"when a token does not come": `
			const real = setTimeout, never = new Promise(() => {});
			window.setTimeout = (f, ms) => real(f, ms / 100);
			let asks = 0;
			const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: () => (++asks < 3 ? never : Promise.resolve("jwt")) });
			const sent = other.send("r", { text: "hi" }); // it has to wait for one, too
			other.connect();
			await until("a socket", () => sockets.length === 2);
			is("sent", (await sent).messages, []);
		`,
		"with another token when one can't be told": `
			Math.random = () => 0;
			const Plain = window.WebSocket, tokens = ["a b", "jwt"], with_ = [];
			window.WebSocket = class extends Plain {
				constructor(url, protocols) {
					if (/\s/.test(protocols[1])) throw new SyntaxError("not a protocol");
					super(url);
					with_.push(protocols[1]);
				}
			};
			const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => tokens.shift() });
			const faults = [];
			other.on("fault", (err) => faults.push(err.name));
			other.connect();
			await until("it back", () => with_.length === 1);
			is("with", with_, ["bearer.jwt"]);
			is("faults", faults, ["SyntaxError"]);
		`,
		"slowly, when its user has too many connections": `
			const real = setTimeout, faults = [], waits = [];
			Math.random = () => 0;
			window.setTimeout = (f, ms) => real(f, ms < 30_000 ? ms : 0);
			client.on("fault", (err) => faults.push(err.message));
			client.on("state", ({ state, retryInMs }) => state === "waiting" && waits.push(retryInMs));
			sockets[0].onclose({ code: 1006 });
			for (let n = 1; n <= 6; n++) {
				await until("it back", () => sockets.length === n + 1 && sockets[n].said.length);
				sockets[n].onclose({ code: 4009 });
				is("state", client.state, "waiting");
			}
			is("waits", waits, [0, 30_000, 60_000, 120_000, 240_000, 300_000, 300_000]);
			is("faults", faults, Array(6).fill("Too many connections"));
			await until("it back", () => sockets.length === 8 && sockets[7].said.length);
			hello(11);
			sockets[7].tells({ type: "resumed", rooms_rev: 11 });
			is("state", client.state, "online");
			sockets[7].onclose({ code: 4009 });
			is("what it waits from the beginning", waits.at(-1), 30_000);
		`,
		"at once, when somebody looks at a page that has too many": `
			sockets[0].onclose({ code: 4009 });
			is("state", client.state, "waiting");
			document.dispatchEvent(new Event("visibilitychange"));
			await until("it back", () => sockets.length === 2);
		`,
		"when the gateway is gone after it has opened": `
			const real = setTimeout;
			window.setTimeout = (f, ms) => real(f, ms / 100);
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2);
			await until("it back again", () => sockets.length === 3);
			is("said", sockets[1].said, [{ type: "resume", rooms: { r: "0-0" } }, { type: "ping" }]);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(script) })
	}
}

// What the client does beside an API that lists rooms: it may be late, or away.
func TestTheClientAndItsListOfRooms(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	for name, script := range map[string]string{
		"a room is joined while it is read": `
			let answer;
			window.fetch = () => new Promise((done) => { answer = (rooms) => done(new Response(JSON.stringify({ rooms }))); });
			const listed = client.rooms();
			await until("the question", () => answer);
			sockets[0].tells({ type: "joined", room: "s", user: "me", head: "7-0", rooms_rev: 12 },
				{ type: "left", room: "r", user: "me", rooms_rev: 13 }, { type: "joined", room: "r", user: "me", head: "9-0", rooms_rev: 14 });
			answer([]); // from before
			await listed;
			is("positions", client.positions, { s: "7-0", r: "9-0" });
			answer = null;
			const again = client.rooms();
			await until("the question", () => answer);
			answer([{ id: "s", head: "7-0" }]);
			await again;
			is("what is on no list", client.positions, { s: "7-0" });
		`,
		"it comes back while it is read": `
			const answers = [];
			window.fetch = () => new Promise((done) => { answers.push((head) => done(new Response(JSON.stringify({ rooms: [{ id: "r", head: "0-0" }, { id: "s", head }] })))); });
			let listed = null;
			client.rooms().then((all) => { listed = all; });
			await until("the question", () => answers.length === 1);
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			is("what it says", sockets[1].said[0].rooms, { r: "0-0" }); // s starts at hello, at 8-0
			answers[0]("7-0");
			await new Promise((done) => setTimeout(done, 50));
			is("asked", answers.length, 1);
			hello(11);
			await until("it asks again", () => answers.length === 2);
			answers[1]("8-0");
			await until("the list", () => listed);
			is("positions", client.positions, { r: "0-0", s: "8-0" });
			is("heads", listed.map((r) => r.head), ["0-0", "8-0"]);
		`,
		"it was read before the first connection": `
			window.fetch = async () => new Response(JSON.stringify({ rooms: [{ id: "s", head: "7-0" }] }));
			const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => "jwt" });
			await other.rooms();
			other.connect();
			await until("a socket", () => sockets.length === 2 && sockets[1].said.length);
			is("what it says", [sockets[1].url, ...sockets[1].said], ["ws://gateway/v1/ws?resume", { type: "resume", rooms: { s: "7-0" } }]);
		`,
		"it could not be read": `
			Math.random = () => 0; // no pauses
			down = true;
			await client.rooms().then(() => { throw new Error("listed"); }, () => {});
			sockets[0].tells({ type: "joined", room: "s", user: "me", head: "0-0", rooms_rev: 12 });
			is("lists asked for", events.filter((e) => e === "rooms").length, 1);
			sockets[0].onclose({ code: 1006 });
			await until("it back", () => sockets.length === 2 && sockets[1].said.length);
			hello(12);
			sockets[1].tells({ type: "resumed", rooms_rev: 12 });
			is("lists asked for", events.filter((e) => e === "rooms").length, 2);
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(script) })
	}
}

// A room's name may be what means something else to a browser.
func TestTheClientAndRoomsOfOddNames(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	for name, script := range map[string]string{
		"no URL can name it": `
			for (const room of [".", ".."]) {
				const no = await client.history(room).then(() => null, (err) => err);
				is("the answer", no.status, 404);
			}
			is("asked", asked, []); // GET /v1/rooms/messages would be the room "messages"
			await client.history("...");
			is("asked", asked, ["/v1/rooms/.../messages?limit=100"]);
		`,
		"its position is told by events": `
			window.fetch = async () => new Response(JSON.stringify({ rooms: [{ id: "__proto__", head: "7-0" }] }));
			const other = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => "jwt", transport: "sse" });
			await other.rooms();
			let said = null;
			window.fetch = async (url, { body }) => { said = body; return new Response(""); };
			other.connect();
			await until("its request", () => said);
			other.close();
			is("what it says", said, '{"rooms":{"__proto__":"7-0"}}');
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).plays(script) })
	}
}

// An answer may ask for patience until tomorrow: nobody waits for that without a word.
func TestTheClientDoesNotWaitForHours(t *testing.T) {
	dev := startDev(t)
	openTab(t, browser(t), 600, 400, dev.URL()).plays(`
		window.fetch = async () => new Response(JSON.stringify({ code: "upload_quota_exceeded" }), { status: 429, headers: { "Retry-After": "80000" } });
		let no = null;
		client.upload(new File(["x"], "x")).catch((err) => { no = err; });
		await until("a no", () => no);
		is("what is told", no.code, "upload_quota_exceeded");
	`)
}
