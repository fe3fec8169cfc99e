// A client of madang: send over HTTP, receive over a WebSocket that reconnects
// by itself, with nothing lost, nothing repeated and everything in order.
//
// It knows the wire contract and nothing of the page that uses it.
//
//   const client = new Client({ api: "", ws: "ws://localhost:8081/v1/ws", token: async () => jwt });
//   client.on("message", (m) => console.log(m.room, m.from, m.body.text));
//   client.connect();
//   await client.send("room-1", { type: "text", text: "hi" });
//
// With transport: "sse" it receives over server-sent events instead.
//
// What a page looks at, types, and watches is said over HTTP, of the connection that
// hello names, and all but typing again with each hello:
//
//   client.on("hello", ({ conn }) => client.request("POST", "/v1/focus", { conn, room: "room-1" }));
//   client.on("event", (e) => e.type === "typing" && console.log(e.room, e.user));
//
// Events: state, hello, message, gap, filled, joined, left, rooms ({ lost }: read the
// list of rooms again; lost: Redis has lost data, perhaps rooms), event, fault.

import { EventStream } from "./stream.js";

const backoffFirstMs = 500; // doubles with each attempt …
const backoffMostMs = 20_000; // … up to this
const crowdedFirstMs = 60_000; // likewise where the user has too many connections: some must end first
const crowdedMostMs = 600_000;
const openTimeoutMs = 10_000; // a handshake that takes longer is given up
const renewLeastMs = 2_000; // what a token must have left for another to be asked for in time
const renewMostMs = 2 ** 31 - 1; // the longest time that a timer keeps
const pongTimeoutMs = 8_000; // a ping without an answer means a dead link
const sendForMs = 60_000; // how long a send is retried
const patienceMs = 60_000; // whoever is to wait longer for an answer is told why instead
const pageSize = 100; // messages per history request while a hole is filled
const heldMost = 5_000; // live messages held back while a hole is filled
const roomsPerResume = 2_000; // a resume frame may have 256 KiB; a position has up to 110 bytes
const requestTimeoutMs = 20_000;
const uploadTimeoutMs = 600_000; // a file's way, either way
const keysMost = 512; // idempotency keys remembered per room
const seenMost = 2_000; // messages remembered per room: where paging backwards has come far enough

const Close = { normal: 1000, tokenExpired: 4001, forbidden: 4003, tooMany: 4009 };

/** An answer of the API that says no. `code` is stable, `detail` is for people. */
export class Problem extends Error {
  constructor(status, body, retryAfterMs) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.code = body.code || "unknown";
    this.retryAfterMs = retryAfterMs;
  }
}

/** Compares two message IDs as what they are: two numbers each. */
export function compareIDs(a, b) {
  const [aMs, aSeq] = a.split("-"), [bMs, bSeq] = b.split("-");
  return aMs.length - bMs.length || cmp(aMs, bMs) || aSeq.length - bSeq.length || cmp(aSeq, bSeq);
}
const cmp = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/** The least ID above one. */
const above = (id) => {
  const [ms, seq] = id.split("-");
  return `${ms}-${BigInt(seq) + 1n}`;
};
const later = (a, b) => (compareIDs(a, b) >= 0 ? a : b);

/** When a token ends, in ms; NaN: it does not say so in a way that we can read. */
function endOf(jwt) {
  try {
    return 1000 * JSON.parse(atob(jwt.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"))).exp;
  } catch {
    return NaN;
  }
}

/** A delay between nothing and the step's bound ("full jitter"): clients that
 *  lost their gateway together do not come back together. */
export function backoff(attempt) {
  return Math.random() * Math.min(backoffMostMs, backoffFirstMs * 2 ** Math.min(attempt, 16));
}

/** A longer one, and never none: those that are too many would only be refused again. */
const crowdedDelay = (attempt) => (0.5 + Math.random() / 2) * Math.min(crowdedMostMs, crowdedFirstMs * 2 ** Math.min(attempt, 16));

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export class Client {
  #api; #ws; #token; #transport;
  #listeners = new Map();
  #rooms = new Map(); // room → Position
  #roomsRev = null; // of the newest hello, resumed, joined or left
  #unlisted = false; // the list of rooms could not be read: to be read with the next hello
  #user = null; // who we are, as hello says
  #jwt = null; // the token in use, fetched again when it is refused
  #asked = null; // the question for another one, while it is open
  #socket = null;
  #state = "offline";
  #attempt = 0;
  #crowded = 0; // attempts that met too many connections
  #wanted = false; // connect() was called, close() was not
  #turn = 0; // changes with what a list of rooms is not to be read across: see #tells
  #telling = null; // between the two
  #retryTimer = 0;
  #pingTimer = 0;
  #renewTimer = 0;
  #heartbeatMs = 25_000;
  #retryInMs = null; // of a bye, or a refusal: when to come back

  /**
   * @param {{api: string, ws: string, token: () => Promise<string>, transport?: string}} options
   *   api: the API's base URL ("" for the page's own); ws: the gateway's socket
   *   URL; token: fetches a JWT, called again when the last one is refused or
   *   about to end;
   *   transport: "websocket" or "sse".
   */
  constructor({ api, ws, token, transport = "websocket" }) {
    this.#transport = transport;
    this.#api = api;
    this.#ws = ws;
    this.#token = token;
  }

  /** Calls f for each event of a kind; returns a function that ends it. */
  on(kind, f) {
    if (!this.#listeners.has(kind)) this.#listeners.set(kind, new Set());
    this.#listeners.get(kind).add(f);
    return () => this.#listeners.get(kind).delete(f);
  }

  /** offline, connecting, online, or waiting (to try again). */
  get state() { return this.#state; }

  /** The last message of each room that has come: what a resume starts from. */
  get positions() {
    return Object.fromEntries([...this.#rooms].filter(([, p]) => p.resume).map(([room, p]) => [room, p.resume]));
  }

  connect() {
    this.#wanted = true;
    this.#listen(true);
    if (!this.#socket) this.#open();
  }

  close() {
    this.#wanted = false;
    this.#listen(false);
    clearTimeout(this.#retryTimer);
    this.#drop(Close.normal);
    this.#setState("offline");
  }

  // ---- sending and reading, over HTTP ----

  /** Appends a message. It is retried with the same key until the API answered,
   *  so that it ends up in the room once, or not at all and the promise rejects. */
  async send(room, body, { key = newKey(), onRetry } = {}) {
    const until = Date.now() + sendForMs;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.request("POST", `/v1/rooms/${enc(room)}/messages`, body, { "Idempotency-Key": key });
      } catch (err) {
        const wait = Math.max(backoff(attempt), err.retryAfterMs || 0);
        if (!retryable(err) || Date.now() + wait > until) throw err;
        onRetry?.(err, attempt + 1);
        await sleep(wait);
      }
    }
  }

  /** A page of history: newest first before an ID (or from the end), oldest first after one. */
  history(room, { before, after, limit = pageSize } = {}) {
    const q = new URLSearchParams({ limit });
    if (before) q.set("before", before);
    if (after) q.set("after", after);
    return this.#patiently(() => this.request("GET", `/v1/rooms/${enc(room)}/messages?${q}`));
  }

  /** All rooms of the user. What comes over the socket is counted from their heads on. */
  async rooms() {
    let all, before;
    try {
      for (let turn = null; turn !== this.#turn;) {
        await this.#telling?.over;
        turn = this.#turn;
        before = [...this.#rooms];
        all = await this.#listed();
      }
    } catch (err) {
      this.#unlisted = true;
      throw err;
    }
    this.#unlisted = false;
    const ids = new Set(all.map((r) => r.id));
    // What was joined while the list was read may not be on it.
    for (const [room, p] of before) if (!ids.has(room) && this.#rooms.get(room) === p) this.#forget(room);
    for (const r of all) this.#position(r.id).begin(r.head); // later messages come by themselves, earlier ones are history
    return all;
  }

  async #listed() {
    const all = [];
    for (let cursor = ""; ;) {
      const q = cursor ? `?cursor=${enc(cursor)}` : "";
      const page = await this.#patiently(() => this.request("GET", `/v1/rooms${q}`));
      all.push(...page.rooms);
      if (!page.next) return all;
      cursor = page.next;
    }
  }

  createRoom(body) { return this.request("POST", "/v1/rooms", body); }
  room(room) { return this.request("GET", `/v1/rooms/${enc(room)}`); }
  members(room) { return this.request("GET", `/v1/rooms/${enc(room)}/members`); }
  addMember(room, user, body) { return this.request("PUT", `/v1/rooms/${enc(room)}/members/${enc(user)}`, body); }
  removeMember(room, user) { return this.request("DELETE", `/v1/rooms/${enc(room)}/members/${enc(user)}`); }
  markRead(room, id) { return this.request("POST", `/v1/rooms/${enc(room)}/read`, { id }); }

  /** Uploads a file; its id goes into a message's `attachments`. It is repeated
   *  until it was answered: what no message names goes by itself. */
  async upload(file, name = file.name) {
    return this.#patiently(async () => {
      const form = new FormData();
      form.append("file", file, name || "file");
      return (await this.#fetch("POST", "/v1/attachments", form, {}, uploadTimeoutMs)).json();
    });
  }

  /** A file that was sent to one of my rooms, as fetch answers it. */
  attachment(id, method = "GET") {
    return this.#patiently(() => this.#fetch(method, `/v1/attachments/${enc(id)}`, undefined, {}, uploadTimeoutMs));
  }

  /** One request, in JSON. */
  async request(method, path, body, headers = {}) {
    const json = body === undefined ? headers : { "Content-Type": "application/json", ...headers };
    const res = await this.#fetch(method, path, body === undefined ? undefined : JSON.stringify(body), json);
    return res.status === 204 ? null : res.json();
  }

  /** One request with the token; a refused token is fetched anew once. */
  async #fetch(method, path, body, headers, timeoutMs = requestTimeoutMs) {
    // A room or a user may be called "." or "..", but no URL can say so: it would become
    // another path, and the answer be another room's.
    if (path.split("?")[0].split("/").some((part) => part === "." || part === "..")) {
      throw new Problem(404, { code: "not_found", detail: "No URL can name this" });
    }
    for (let again = false; ; again = true) {
      const jwt = await this.#bearer();
      const res = await fetch(this.#api + path, {
        method, body,
        headers: { Authorization: `Bearer ${jwt}`, ...headers },
        signal: AbortSignal.timeout(timeoutMs),
      });
      if (res.ok) return res;
      const problem = await res.json().catch(() => ({}));
      if (res.status === 401 && !again) {
        if (this.#jwt === jwt) this.#jwt = null;
        continue;
      }
      throw new Problem(res.status, problem, 1000 * (Number(res.headers.get("Retry-After")) || 0));
    }
  }

  /** The token in use, or a new one. */
  async #bearer() { return (this.#jwt ??= await this.#newToken()); }

  /** Another token: one question for all who need one. */
  #newToken() { return (this.#asked ??= this.#ask().finally(() => { this.#asked = null; })); }

  /** A question for a token may stay without an answer (a network that is gone
   *  without a word): then it is asked again. */
  async #ask() {
    let late = 0;
    const inTime = new Promise((_, no) => { late = setTimeout(() => no(new DOMException("No token came in time", "TimeoutError")), openTimeoutMs); });
    try {
      return await Promise.race([this.#token(), inTime]);
    } finally {
      clearTimeout(late);
    }
  }

  /** Repeats a read until it is answered, or refused for good, or for long (a quota). */
  async #patiently(read) {
    for (let attempt = 0; ; attempt++) {
      try {
        return await read();
      } catch (err) {
        if (!retryable(err) || attempt > 8 || err.retryAfterMs > patienceMs) throw err;
        await sleep(Math.max(backoff(attempt), err.retryAfterMs || 0));
      }
    }
  }

  // ---- the socket ----

  async #open() {
    clearTimeout(this.#retryTimer);
    this.#retryInMs = null;
    const socket = (this.#socket = {}); // holds the place while the token is fetched
    this.#setState("connecting");
    let ws;
    try {
      const jwt = await this.#bearer();
      if (this.#socket !== socket) return; // closed meanwhile
      ws = this.#socket = this.#connection(jwt);
      this.#renewInTime(ws, jwt);
    } catch (err) { // no token, or one that can't be one: another may come
      this.#jwt = null;
      this.#emit("fault", err);
      if (this.#socket === socket) this.#closed(0);
      return;
    }
    const timeout = setTimeout(() => ws === this.#socket && this.#drop(), openTimeoutMs);
    ws.onopen = () => {
      clearTimeout(timeout);
      if (ws !== this.#socket) return;
      this.#alive(); // hello may not come
      if (!ws.mute) this.#sayPositions(); // else its request has said them
    };
    ws.onmessage = (e) => {
      if (ws !== this.#socket) return;
      this.#alive();
      try {
        for (const line of e.data.split("\n")) {
          if (ws !== this.#socket) return; // it was closed for what came before
          if (line) this.#handle(JSON.parse(line));
        }
      } catch (err) { // not what a gateway says: what it was to be comes with a resume
        this.#emit("fault", err);
        this.#drop();
      }
    };
    ws.onclose = (e) => {
      clearTimeout(timeout);
      if (ws === this.#socket) this.#closed(e.code, e.retryAfterMs);
    };
  }

  #connection(jwt) {
    if (this.#transport === "sse") return new EventStream(this.#ws, jwt, this.#resumeFrom());
    const url = new URL(this.#ws);
    url.search += (url.search ? "&" : "?") + "resume";
    return new WebSocket(url, ["madang.v1", `bearer.${jwt}`]);
  }

  #say(what) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(what));
  }

  #sayPositions() {
    const all = Object.entries(this.#resumeFrom());
    do {
      const some = all.splice(0, roomsPerResume);
      this.#say({ type: "resume", rooms: Object.fromEntries(some), ...(all.length && { more: true }) });
    } while (all.length);
  }

  /** The positions, for a resume. What it brings is taken from there on, also where
   *  something is missing before what is here. */
  #resumeFrom() {
    this.#tells();
    for (const p of this.#rooms.values()) p.again();
    return this.positions;
  }

  /** From when positions are told until hello: a room that is not among them starts
   *  there, so a list of rooms from before would leave a hole behind its heads. */
  #tells() {
    this.#turn++;
    if (this.#telling) return;
    let end;
    this.#telling = { over: new Promise((done) => { end = done; }), end };
  }

  #told() {
    if (!this.#telling) return;
    this.#turn++;
    this.#telling.end();
    this.#telling = null;
  }

  /** Has the socket go on with another token before its own ends. Where none comes it
   *  is asked for again, in what is left of that time; at last the gateway ends the
   *  connection, which is resumed with another. */
  #renewInTime(ws, jwt) {
    clearTimeout(this.#renewTimer);
    const left = endOf(jwt) - Date.now(); // of clocks that differ, or no number: it is resumed
    if (ws.mute || !(left > renewLeastMs && left < renewMostMs)) return;
    this.#renewTimer = setTimeout(async () => {
      let next = jwt;
      try {
        next = endOf(this.#jwt) > endOf(jwt) ? this.#jwt : await this.#newToken(); // requests go on with the old one
      } catch { // it has some time
      }
      if (ws !== this.#socket) return;
      if (endOf(next) > endOf(jwt)) {
        this.#jwt = jwt = next;
        this.#say({ type: "auth", token: jwt });
      }
      this.#renewInTime(ws, jwt);
    }, left * (0.8 + Math.random() / 10)); // who came together does not ask together
  }

  /** Something came: the link lives. When nothing comes for a heartbeat, ask. */
  #alive() {
    clearTimeout(this.#pingTimer);
    this.#pingTimer = setTimeout(() => this.#ping(), this.#heartbeatMs);
  }

  #ping() {
    this.#say({ type: "ping" });
    clearTimeout(this.#pingTimer);
    this.#pingTimer = setTimeout(() => this.#drop(), pongTimeoutMs);
  }

  #online = () => this.#hurry();
  #looked = () => document.hidden || this.#hurry();

  /** Listens to the page, or no more: it would keep a client that it has let go. */
  #listen(on) {
    if (typeof window === "undefined") return;
    const what = on ? "addEventListener" : "removeEventListener";
    window[what]("online", this.#online);
    document[what]("visibilitychange", this.#looked);
  }

  /** The network is back, or the page is looked at again: do not wait. */
  #hurry() {
    if (this.#state === "waiting" && !this.#retryInMs) {
      this.#attempt = 0;
      this.#open();
    } else if (this.#state === "online" && !this.#socket.mute) {
      this.#ping(); // a socket may have died while the machine slept
    }
  }

  /** Gives the socket up without waiting for the other side. */
  #drop(code) {
    const ws = this.#socket;
    if (!ws) return;
    if (ws.close) ws.close(code);
    this.#closed(0);
  }

  #closed(code, retryAfterMs) {
    clearTimeout(this.#pingTimer);
    clearTimeout(this.#renewTimer);
    this.#socket = null;
    this.#told();
    if (!this.#wanted) return;
    if (code === Close.tokenExpired || this.#state === "connecting") this.#jwt = null;
    if (code === Close.forbidden) {
      this.#wanted = false;
      this.#listen(false);
      this.#setState("offline");
      this.#emit("fault", new Error("The gateway refused this user"));
      return;
    }
    const crowded = code === Close.tooMany;
    if (retryAfterMs) this.#retryInMs ??= retryAfterMs;
    const wait = crowded ? crowdedDelay(this.#crowded++) : this.#delay();
    this.#retryTimer = setTimeout(() => this.#open(), wait); // before somebody is told, who may close it
    this.#setState("waiting", wait);
    if (crowded) this.#emit("fault", new Error("Too many connections"));
  }

  /** What we were told; longer each time before one has resumed: a revoked token is
   *  told to come back at once, and there may be no other. */
  #delay() {
    if (this.#state !== "connecting") return this.#retryInMs ?? backoff(this.#attempt++);
    return Math.max(this.#retryInMs ?? 0, backoff(this.#attempt++));
  }

  // ---- what comes down ----

  #handle(e) {
    switch (e.type) {
      case "hello": {
        this.#heartbeatMs = e.heartbeat_s * 1000;
        this.#alive();
        this.#user = e.user;
        const before = this.#roomsRev, socket = this.#socket;
        this.#roomsRev = e.rooms_rev;
        this.#told();
        this.#emit("hello", e);
        if (socket !== this.#socket) return; // whoever heard it has closed it
        this.#catchUp(socket.leftOut ?? []);
        // Added or removed while away; or, as revisions only grow, Redis has lost data.
        if (before !== e.rooms_rev || this.#unlisted) this.#emit("rooms", { lost: e.rooms_rev < before });
        return;
      }
      case "resumed":
        if (this.#roomsRev !== e.rooms_rev) {
          const lost = e.rooms_rev < this.#roomsRev;
          this.#roomsRev = e.rooms_rev;
          this.#emit("rooms", { lost });
        }
        this.#setState("online");
        return;
      case "message":
        return this.#arrived(e);
      case "gap":
        return this.#gap(e);
      case "joined":
      case "left": {
        // The room's own channel tells of our leaving sooner than ours, without a
        // revision: nothing of the room comes after it either way.
        if (e.rooms_rev !== undefined || e.user === this.#user) {
          if (e.type === "left") this.#forget(e.room);
          else this.#position(e.room).begin(e.head);
        }
        if (e.rooms_rev === undefined) return this.#emit(e.type, e);
        const back = e.rooms_rev < this.#roomsRev;
        this.#roomsRev = e.rooms_rev;
        this.#emit(e.type, e);
        // Redis has lost data, or the gateway can't vouch for what was missed.
        if (back) this.#emit("rooms", { lost: false });
        return;
      }
      case "bye":
        this.#retryInMs = e.retry_in_ms;
        return this.#emit("event", e);
      case "error":
        return this.#emit("fault", new Problem(0, e));
      default:
        return this.#emit("event", e);
    }
  }

  /** A message from the socket: dropped when it was here, held while a hole
   *  before it is filled. */
  #arrived(m) {
    const p = this.#position(m.room);
    if (p.held) {
      p.held.push(m);
      if (p.held.length > heldMost) {
        p.held.length = 0; // all of it comes again: it is behind the position
        this.#drop(); // resuming is cheaper than holding
      }
      return;
    }
    if (p.filter && compareIDs(m.id, p.filter) <= 0) return;
    if (p.filter && m.prev !== p.filter && compareIDs(m.prev, p.filter) > 0) {
      // Never seen from a healthy gateway. The chain says that something is missing.
      this.#fill(m.room, p, p.filter, m.prev, [m]);
      return;
    }
    this.#deliver(m, p);
  }

  #deliver(m, p) {
    const again = p.beyond.has(m.id);
    p.filter = m.id;
    p.saw(m.id);
    if (!p.hole) p.resume = p.resume ? later(p.resume, m.id) : m.id;
    if (again) return;
    // A retry that Redis's failover turned into a second entry is the same message.
    if (m.key) {
      const key = `${m.from}\n${m.key}`;
      if (p.keys.has(key)) m = { ...m, repeats: p.keys.get(key) };
      p.keys.set(key, m.id);
      if (p.keys.size > keysMost) p.keys.delete(p.keys.keys().next().value);
    }
    this.#emit("message", m);
  }

  #gap(g) {
    const p = this.#position(g.room);
    this.#emit("gap", g);
    // From what is here with all before it. While a hole is filled, what came behind it
    // waits here, though the gateway has delivered it; and more may have been paged than
    // a connection was told that began meanwhile.
    p.begin(g.after);
    this.#fill(g.room, p, p.resume, g.head, []);
  }

  /** Pages what was missed in rooms that a resume had no room for, one after the
   *  other. They are delivered from hello on: that waits from now on. */
  async #catchUp(rooms) {
    const waiting = rooms.filter((room) => this.#rooms.has(room)).map((room) => { // else it was left meanwhile
      const p = this.#position(room);
      return { room, p, mine: (p.held = []) };
    });
    for (const { room, p, mine } of waiting) {
      if (p.held === mine) await this.#fill(room, p, p.resume, null, mine);
    }
  }

  /** Pages the messages after one ID up to another, or to the room's head (null),
   *  in order, and holds back what the socket brings meanwhile. The position to resume from stays where
   *  it was until the hole is filled.
   *
   *  A failover may have taken back what we have. Then the head is before our
   *  position, or the first message after it does not follow it: what is new is
   *  found by paging backwards, to what was here before. */
  async #fill(room, p, after, upTo, held) {
    const mine = (p.held = held);
    let lost = false;
    p.hole = false; // from here on it moves with what is paged
    try {
      upTo ??= (await this.history(room, { limit: 1 })).messages[0]?.id ?? after;
      if (p.held !== mine) return;
      lost = compareIDs(upTo, after) < 0;
      if (lost) await this.#fillBackwards(room, p, above(upTo), mine);
      let first = true;
      for (let from = after; compareIDs(from, upTo) < 0;) {
        const page = await this.history(room, { after: from });
        if (first && page.messages.length && compareIDs(page.messages[0].prev, after) < 0) {
          await this.#fillBackwards(room, p, page.messages[0].id, mine);
        }
        first = false;
        for (const m of page.messages) {
          if (p.held !== mine) return; // a newer gap took over, or the room was left
          if (compareIDs(m.id, upTo) > 0) break;
          this.#deliver({ ...m, room, paged: true }, p);
        }
        if (!page.more || page.messages.length === 0) break;
        from = page.messages.at(-1).id;
      }
    } catch (err) {
      // The next resume tries again; but not from a position that the log has not
      // reached, if there is nothing to be had: that would wait for ever.
      p.hole = !lost || retryable(err);
      if (p.held === mine) this.#emit("fault", err);
    }
    if (p.held !== mine) return;
    p.held = null;
    if (upTo) p.filter = upTo; // even when it is lower: a failover took the tail back
    if (!p.hole) p.resume = upTo;
    this.#emit("filled", { room, after, head: upTo });
    for (const m of mine) this.#arrived(m);
  }

  /** Delivers what a log has before an ID and was never here, oldest first. */
  async #fillBackwards(room, p, before, mine) {
    const missed = [];
    for (let more = true; more && missed.length < heldMost;) {
      const page = await this.history(room, { before });
      if (p.held !== mine) return;
      more = page.more && page.messages.length > 0;
      for (const m of page.messages) {
        if (p.knows(m.id)) {
          more = false;
          break;
        }
        missed.push(m);
        before = m.id;
      }
    }
    for (const m of missed.reverse()) this.#deliver({ ...m, room, paged: true }, p);
  }

  /** Takes in that we are not in a room any more: nothing of it is delivered. */
  #forget(room) {
    const p = this.#rooms.get(room);
    if (p) p.held = null; // who fills a hole of it finds that out
    this.#rooms.delete(room);
  }

  #position(room) {
    if (!this.#rooms.has(room)) this.#rooms.set(room, new Position());
    return this.#rooms.get(room);
  }

  #setState(state, detail) {
    this.#state = state;
    if (state === "online") this.#attempt = this.#crowded = 0; // not with hello: what kills a gateway may be the resume
    this.#emit("state", { state, retryInMs: detail });
  }

  /** Tells listeners. What one throws is the page's to see, and nobody else's: it
   *  must not keep what comes next in the same frame or page from the others. */
  #emit(kind, what) {
    for (const f of this.#listeners.get(kind) ?? []) {
      try {
        f(what);
      } catch (err) {
        queueMicrotask(() => { throw err; });
      }
    }
  }
}

/** How far a room has come. */
class Position {
  resume = null; // the last message that is here with all before it: sent when resuming
  filter = null; // what is not newer was delivered already
  hole = false; // something before filter is missing, and could not be fetched
  held = null; // messages that wait for a hole to be filled
  keys = new Map(); // sender and idempotency key → ID, of the newest messages
  seen = new Set(); // IDs of the newest messages that were here
  beyond = new Set(); // … and of those that came while a hole before them was open
  from = null; // what is not newer than this was history from the beginning

  /** Starts at a room's head, unless it has started. */
  begin(head) {
    this.from ??= head;
    this.resume ??= head;
  }

  saw(id) {
    this.from ??= id;
    // Paging backwards ends at what was seen: beyond a hole that would be too soon.
    const ids = this.hole ? this.beyond : this.seen;
    ids.add(id);
    if (ids.size > seenMost) ids.delete(ids.values().next().value);
  }

  /** What is told next starts at the position, also when there is a hole behind it. */
  again() {
    if (!this.hole || this.held) return; // held: it is being filled
    this.hole = false;
    this.filter = this.resume;
  }

  /** Whether a message was here, or is older than anything that is to come. */
  knows(id) { return this.seen.has(id) || this.from !== null && compareIDs(id, this.from) <= 0; }
}

export function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only in secure contexts
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

const enc = encodeURIComponent;
const retryable = (err) => !(err instanceof Problem) || err.status === 408 || err.status === 429 || err.status >= 500;
