package test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// clientPlays are a gateway, an API and a network that fail as a seed has it, on a
// clock of their own, around web/client.js. Each play ends in calm: then all that was
// said in the rooms since the list of them was read has come once, and in order where
// history could be had.
const clientPlays = `
	const { Client, compareIDs } = await import("/client.js");
	const channel = new MessageChannel(), turns = [];
	channel.port1.onmessage = () => turns.shift()();
	const turn = () => new Promise((done) => { turns.push(done); channel.port2.postMessage(0); }); // until all promises are through
	const seeded = (n) => () => {
		let t = n = n + 0x6D2B79F5 | 0;
		t = Math.imul(t ^ t >>> 15, 1 | t);
		t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
		return ((t ^ t >>> 14) >>> 0) / 4294967296;
	};
	const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

	async function play(seed) {
		const random = seeded(seed), int = (n) => Math.floor(random() * n), chance = (p) => random() < p;
		const away = seed % 3 === 0 ? 0.85 : 0.3; // how many requests fail; with most of them holes stay open, and are filled later
		let now = 0, timers = [], ids = 0, troubled = true;
		Math.random = random;
		Date.now = () => now;
		window.setTimeout = (f, ms = 0) => { timers.push({ id: ++ids, at: now + Math.max(1, ms), f }); return ids; };
		window.clearTimeout = (id) => { timers = timers.filter((t) => t.id !== id); };
		const step = async () => {
			await turn();
			timers.sort((a, b) => a.at - b.at || a.id - b.id);
			const t = timers.shift();
			now = t.at;
			t.f();
		};

		const logs = { a: [], b: [] }, sockets = [];
		let messages = 0;
		const head = (room) => logs[room].at(-1)?.id ?? "0-0";
		const after = (room, id) => logs[room].filter((m) => compareIDs(m.id, id) > 0);
		const append = (room, told = true) => {
			const m = { type: "message", room, id: ++messages + "-0", prev: head(room), from: "bob", body: {} };
			logs[room].push(m);
			if (told) for (const s of sockets) s.hears(m);
		};
		// A gateway: positions are answered with what came after them, or a gap.
		window.WebSocket = class {
			constructor() {
				this.readyState = 0;
				this.queue = [];
				this.state = "held"; // until positions and hello are there
				sockets.push(this);
				setTimeout(() => {
					if (this.readyState) return;
					if (troubled && chance(0.2)) return this.dies(1006);
					this.readyState = 1;
					this.onopen();
					setTimeout(() => {
						this.heads = { a: head("a"), b: head("b") };
						this.says({ type: "hello", user: "me", rooms_rev: 1, heartbeat_s: 25 });
						this.resumes();
					}, 1 + int(30));
				}, 1 + int(50));
			}
			says(e) {
				this.queue.push(e);
				setTimeout(() => this.flushes(), 1 + int(20));
			}
			flushes() {
				if (this.readyState !== 1 || !this.queue.length) return;
				this.onmessage({ data: this.queue.splice(0, 1 + int(this.queue.length)).map((e) => JSON.stringify(e)).join("\n") });
				if (this.queue.length) setTimeout(() => this.flushes(), 1 + int(20));
			}
			send(text) {
				const e = JSON.parse(text);
				if (e.type === "ping" && !(troubled && chance(0.3))) this.says({ type: "pong" });
				if (e.type !== "resume") return;
				this.positions = e.rooms;
				this.resumes();
			}
			resumes() {
				if (!this.positions || !this.heads) return;
				setTimeout(() => {
					if (this.readyState !== 1) return;
					this.state = "live";
					for (const room of ["a", "b"]) {
						const from = this.positions[room] ?? this.heads[room], missed = after(room, from);
						if (missed.length > 4) this.says({ type: "gap", room, after: from, head: head(room) });
						else for (const m of missed) this.says(m);
					}
					this.says({ type: "resumed", rooms_rev: 1 });
				}, 1 + int(40));
			}
			hears(m) { if (this.state === "live" && this.readyState === 1) this.says(m); }
			slow() { // it leaves messages out, and tells a gap
				if (this.state !== "live" || this.readyState !== 1) return;
				const from = head("a");
				for (let n = 1 + int(6); n > 0; n--) append("a", false);
				this.says({ type: "gap", room: "a", after: from, head: head("a") });
			}
			dies(code) {
				if (this.readyState === 3) return;
				this.readyState = 3;
				this.onclose({ code });
			}
			close() { this.readyState = 3; }
		};
		window.fetch = (path) => new Promise((done, fail) => setTimeout(() => {
			if (troubled && chance(away)) return chance(0.5) ? fail(new TypeError("Failed to fetch")) : done(new Response("{}", { status: 503 }));
			const { pathname, searchParams: q } = new URL(path, location.href);
			let answer = { rooms: ["a", "b"].map((id) => ({ id, head: head(id) })) };
			if (pathname !== "/v1/rooms") {
				const room = pathname.split("/")[3], limit = Math.min(3, q.get("limit"));
				const all = q.has("after") ? after(room, q.get("after")) : logs[room].filter((m) => !q.has("before") || compareIDs(m.id, q.get("before")) < 0).reverse();
				answer = { messages: all.slice(0, limit), more: all.length > limit };
			}
			setTimeout(() => done(new Response(JSON.stringify(answer))), 1 + int(pathname === "/v1/rooms" ? 400 : 60));
		}, 1 + int(60)));

		const token = () => new Promise((done, fail) => setTimeout(() => (troubled && chance(0.1) ? fail(new TypeError("Failed to fetch")) : done("jwt")), 1 + int(20)));
		const client = new Client({ api: "", ws: "ws://gateway/v1/ws", token }), got = { a: [], b: [] };
		let heads = null; // of the first list
		client.on("message", (m) => got[m.room].push(m.id));
		client.on("rooms", () => client.rooms().then((all) => { heads ??= Object.fromEntries(all.map((r) => [r.id, r.head])); }, () => {}));
		client.connect();
		for (let n = 0; n < 300; n++) {
			if (chance(0.25)) append(chance(0.7) ? "a" : "b");
			if (chance(0.02)) sockets.at(-1)?.slow();
			if (chance(0.02)) sockets.at(-1)?.dies(chance(0.2) ? 4009 : 1006);
			if (chance(0.01)) sockets.at(-1)?.says({ type: "bye", retry_in_ms: int(2000) });
			if (chance(0.01)) document.dispatchEvent(new Event("visibilitychange"));
			if (chance(0.004)) {
				client.close();
				client.connect();
			}
			await step();
		}
		troubled = false;
		for (let n = 0; n < 1500 && !(client.state === "online"); n++) await step();
		sockets.at(-1).dies(1006); // what is missing still comes with a resume
		for (const end = now + 200_000; now < end;) await step();
		client.close();
		if (!heads) throw new Error("no list in play " + seed);
		for (const room of ["a", "b"]) {
			const want = after(room, heads[room]).map((m) => m.id), all = got[room].filter((id) => compareIDs(id, heads[room]) > 0);
			const what = new Set(got[room]).size < got[room].length ? "twice" : !same([...all].sort(compareIDs), want) ? "lost" : away < 0.5 && !same(all, want) ? "out of order" : "";
			if (what) throw new Error("play " + seed + ", room " + room + ": something came " + what + ": " + all + ", want " + want);
		}
	}
	for (let seed = FROM; seed < TO; seed++) await play(seed);
`

func TestTheClientThroughAnything(t *testing.T) {
	from, plays := 1, 150
	if full {
		plays = 5000
	}
	p := openTab(t, browser(t), 600, 400, startDev(t).URL())
	const atOnce = 50 // an evaluation has a time-out
	for ; from <= plays; from += atOnce {
		seeds := strings.NewReplacer("FROM", strconv.Itoa(from), "TO", strconv.Itoa(from+atOnce))
		p.does(chromedp.Evaluate[chromedp.Void](`(async () => {`+seeds.Replace(clientPlays)+`})()`, chromedp.EvalAwaitPromise))
	}
}
