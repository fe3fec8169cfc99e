package test

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// eventsWorld is a gateway that a page's client reads events from, and an API, as
// scripts; and a clock whose long times pass when the test says so.
const eventsWorld = `
	const { Client, compareIDs } = await import("/client.js");
	const streams = [], asked = [], logs = {};
	let refusal = null; // what the next requests for events are answered; null: events
	const timers = new Map(), real = window.setTimeout;
	window.setTimeout = (f, ms = 0) => {
		if (ms < 400) return real(f, ms);
		const id = -1 - timers.size - Math.random();
		timers.set(id, { f, ms });
		return id;
	};
	const clear = window.clearTimeout;
	window.clearTimeout = (id) => timers.delete(id) || clear(id);
	const passes = (ms) => { for (const [id, t] of [...timers]) if (t.ms <= ms && timers.delete(id)) t.f(); };
	Math.random = () => 0.99; // how long it waits at the most
	Object.defineProperty(document, "hidden", { get: () => false });
	const isLookedAt = () => document.dispatchEvent(new Event("visibilitychange"));
	window.fetch = async (path, { method, body, signal }) => {
		const url = new URL(path, location.href), q = url.searchParams;
		const json = (status, what, headers) => new Response(JSON.stringify(what), { status, headers });
		if (url.pathname.endsWith("/events")) {
			const s = { rooms: body ? JSON.parse(body).rooms : null, bytes: body?.length ?? 0, gone: false };
			streams.push(s);
			if (refusal) return json(refusal.status, { code: refusal.code }, refusal.headers);
			const say = (c, text) => c.enqueue(new TextEncoder().encode(text));
			return new Response(new ReadableStream({
				start(c) {
					s.comments = () => say(c, ":\n\n");
					s.tells = (...events) => say(c, events.map((e) => "data: " + JSON.stringify(e) + "\n\n").join(""));
					s.ends = () => c.close();
					signal.addEventListener("abort", () => { s.gone = true; c.error(new DOMException("", "AbortError")); });
				},
			}));
		}
		asked.push(url.pathname + url.search);
		const room = url.pathname.split("/")[3], log = logs[room] ?? [], limit = Number(q.get("limit"));
		if (logs.away) return json(503, { code: "unavailable" }, { "Retry-After": "1" });
		let all = log.map((m, i) => ({ ...m, prev: log[i - 1]?.id ?? "0-0" }));
		if (q.has("after")) all = all.filter((m) => compareIDs(m.id, q.get("after")) > 0);
		else all = all.filter((m) => !q.has("before") || compareIDs(m.id, q.get("before")) < 0).reverse();
		return json(200, { messages: all.slice(0, limit), more: all.length > limit });
	};
	const client = new Client({ api: "", ws: "ws://gateway/v1/ws", token: async () => "jwt", transport: "sse" });
	const got = [], events = [], states = [];
	client.on("message", (m) => got.push(m.room + " " + m.id));
	client.on("state", (s) => states.push(s));
	for (const kind of ["hello", "filled", "fault"]) client.on(kind, () => events.push(kind));
	const until = async (what, f) => {
		for (let i = 0; !f(); i++) {
			if (i > 500) throw new Error("waited in vain for " + what + ": got " + JSON.stringify({ got, events, states, asked, timers: [...timers.values()].map((t) => t.ms) }));
			await new Promise((done) => real(done, 5));
		}
	};
	const is = (what, a, b) => {
		if (JSON.stringify(a) !== JSON.stringify(b)) throw new Error(what + ": " + JSON.stringify(a) + ", want " + JSON.stringify(b));
	};
	const message = (room, id) => ({ type: "message", room, id, from: "bob", body: { text: id } });
	const appends = (room, ...ids) => { (logs[room] ??= []).push(...ids.map((id) => message(room, id))); };
	const live = (room, id) => {
		const prev = logs[room]?.at(-1)?.id ?? "0-0";
		appends(room, id);
		streams.at(-1).tells({ ...message(room, id), prev });
	};
	const hello = () => streams.at(-1).tells({ type: "hello", user: "me", rooms_rev: 10, heartbeat_s: 25 }, { type: "resumed", rooms_rev: 10 });
	const comesOnline = async () => {
		const n = streams.length + 1;
		client.connect();
		await until("a stream", () => streams.length === n && streams.at(-1).tells);
		hello();
		await until("it online", () => client.state === "online");
	};
`

// playsOverEvents runs a script in a tab, beside eventsWorld.
func (p *tab) playsOverEvents(script string) {
	p.t.Helper()
	p.does(chromedp.Evaluate[chromedp.Void](`(async () => {`+eventsWorld+script+`})()`, chromedp.EvalAwaitPromise))
}

// What web/client.js does over server-sent events and not over a WebSocket.
func TestTheClientOverEvents(t *testing.T) {
	dev := startDev(t)
	chromium := browser(t)
	for name, script := range map[string]string{
		"a stream that lives is kept when the page is looked at": `
			await comesOnline();
			isLookedAt();
			passes(8_000); // nothing can be asked, so no answer is missing
			streams[0].comments();
			await new Promise((done) => real(done, 20));
			is("state", client.state, "online");
			is("streams", streams.length, 1);
			is("gone", streams[0].gone, false);
		`,
		"a stream that has gone silent is given up": `
			await comesOnline();
			passes(25_000); // a heartbeat: a comment should have come
			is("gone", streams[0].gone, false);
			passes(8_000);
			is("gone", streams[0].gone, true);
			is("state", client.state, "waiting");
		`,
		"a gateway says when to come back": `
			refusal = { status: 429, code: "rate_limited", headers: { "Retry-After": "30" } };
			client.connect();
			await until("it waiting", () => client.state === "waiting");
			is("how long", states.at(-1).retryInMs, 30_000);
			isLookedAt(); // no reason to come sooner
			is("state", client.state, "waiting");
			refusal = { status: 503, code: "unavailable", headers: { "Retry-After": "7" } };
			passes(30_000);
			await until("it waiting again", () => streams.length === 2 && client.state === "waiting");
			is("how long", states.at(-1).retryInMs, 7_000);
			refusal = null;
			passes(7_000);
			await until("a stream", () => streams.length === 3 && streams[2].tells);
			hello();
			await until("it online", () => client.state === "online");
			is("faults", events.includes("fault"), false);
		`,
		"a user is in ten thousand rooms": `
			await comesOnline();
			const name = (i) => String(i).padStart(64, "r"), at = "1732281234567-12345678";
			streams[0].tells(...Array.from({ length: 10_000 }, (_, i) => ({ type: "joined", room: name(i), user: "me", head: at, rooms_rev: 11 + i })));
			await until("them known", () => Object.keys(client.positions).length === 10_000);
			streams[0].ends();
			await until("it waiting", () => client.state === "waiting");
			passes(20_000);
			await until("it back", () => streams.length === 2);
			is("rooms", Object.keys(streams[1].rooms).length, 10_000);
			is("no more than is taken", streams[1].bytes <= 1.25 * 2 ** 20, true);
		`,
		"more rooms than a request has room for": `
			await comesOnline();
			const name = (i) => String(i).padStart(64, "r"), most = 15_000, last = name(most - 1), before = name(most - 2);
			const rooms = Array.from({ length: most }, (_, i) => name(i));
			for (const room of [last, before]) appends(room, "1732281234567-12345678");
			streams[0].tells(...rooms.map((room, i) => ({ type: "joined", room, user: "me", head: "1732281234567-12345678", rooms_rev: 11 + i })));
			await until("them known", () => Object.keys(client.positions).length === most);
			streams[0].ends();
			await until("it waiting", () => client.state === "waiting");
			appends(last, "1732281234568-0", "1732281234569-0"); // missed
			passes(20_000);
			await until("it back", () => streams.length === 2 && streams[1].tells);
			is("no more than is taken", streams[1].bytes <= 1.25 * 2 ** 20, true);
			const sent = new Set(Object.keys(streams[1].rooms)), left = rooms.filter((r) => !sent.has(r));
			is("most of them", sent.size > 10_000, true);
			is("those that were left out", left.includes(last) && left.includes(before), true);
			logs.away = true; // the API, for the first of them
			hello();
			live(last, "1732281234570-0"); // before what was missed is there
			streams[1].tells({ type: "resumed", rooms_rev: 10 });
			await until("history asked", () => asked.length > 0);
			is("nothing before that", got, []);
			logs.away = false;
			const asks = setInterval(() => passes(2_000), 5);
			await until("what was missed", () => got.length === 3);
			is("what came", got, ["1732281234568-0", "1732281234569-0", "1732281234570-0"].map((id) => last + " " + id));
			is("position", client.positions[last], "1732281234570-0");
			await until("all read", () => events.filter((e) => e === "filled").length === left.length);
			clearInterval(asks);
			live(before, "1732281234571-0");
			await until("what is new", () => got.length === 4);
			is("faults", events.includes("fault"), false);
		`,
		"a gateway says no for good": `
			refusal = { status: 403, code: "forbidden" };
			client.connect();
			await until("it offline", () => client.state === "offline");
			is("faults", events.filter((e) => e === "fault").length, 1);
			is("streams", streams.length, 1);
		`,
		"there are too many, and nothing says when to come back": `
			refusal = { status: 429, code: "rate_limited" };
			client.connect();
			await until("a fault", () => events.includes("fault"));
			is("how long", states.at(-1), { state: "waiting", retryInMs: 59_700 });
		`,
	} {
		t.Run(name, func(t *testing.T) { openTab(t, chromium, 600, 400, dev.URL()).playsOverEvents(script) })
	}
}
