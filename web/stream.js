// Server-sent events in the place of a WebSocket, for where those do not get
// through: the same events, read from a response that does not end. It is not the
// browser's EventSource, which can send neither a token nor positions.

const Close = { goingAway: 1001, tokenExpired: 4001, forbidden: 4003, tooMany: 4009 };
const bodyMost = 1.25 * 2 ** 20; // bytes that a gateway takes: 10,000 rooms, the most of a user, have up to 1.1 MB
const codes = { 401: Close.tokenExpired, 403: Close.forbidden, 429: Close.tooMany };

export class EventStream {
  readyState = 0;
  mute = true; // it can't be asked whether it lives
  onopen = null;
  onmessage = null;
  onclose = null;
  leftOut = []; // rooms whose positions the request had no room for: they start at hello
  #abort = new AbortController();

  /**
   * @param {string|URL} url the gateway's socket URL (ws:…/v1/ws)
   * @param {string} jwt
   * @param {Object<string, string>|null} positions to resume from; null: from now on
   */
  constructor(url, jwt, positions) {
    const events = new URL(url);
    events.protocol = events.protocol === "wss:" ? "https:" : "http:";
    events.pathname = events.pathname.replace(/ws$/, "events");
    this.#run(events, jwt, positions);
  }

  /** Nothing is said upward: the positions are in the request, and heartbeats come by themselves. */
  send() {}

  close() {
    this.readyState = 3;
    this.#abort.abort();
  }

  #fitting(positions) {
    const rooms = Object.create(null); // one may be called __proto__
    let free = bodyMost - `{"rooms":{}}`.length;
    for (const [room, at] of Object.entries(positions)) {
      free -= room.length + at.length + `"":"",`.length; // all of it is ASCII
      if (free >= 0) rooms[room] = at;
      else this.leftOut.push(room);
    }
    return rooms;
  }

  async #run(url, jwt, positions) {
    let code = Close.goingAway, retryAfterMs = 0;
    try {
      const body = positions && JSON.stringify({ rooms: this.#fitting(positions) });
      const res = await fetch(url, {
        method: body ? "POST" : "GET",
        headers: { Authorization: `Bearer ${jwt}`, ...(body && { "Content-Type": "application/json" }) },
        body,
        cache: "no-store",
        signal: this.#abort.signal,
      });
      if (res.ok) {
        this.readyState = 1;
        this.onopen?.();
        code = await this.#read(res.body);
      } else {
        retryAfterMs = 1000 * (Number(res.headers.get("Retry-After")) || 0);
        if (!retryAfterMs) code = codes[res.status] ?? code; // else it is no no, only not now
      }
    } catch { // the network, or close()
    }
    this.readyState = 3;
    this.onclose?.({ code, retryAfterMs });
  }

  /** Reads to the end, and says which close code that stands for. */
  async #read(body) {
    let code = Close.goingAway, rest = "";
    for (const reader = body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) return code;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        // A comment is a sign of life, and no event.
        const data = block.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
        if (/^\{"type":"bye","reason":"(token_expired|revoked)"/.test(data)) code = Close.tokenExpired;
        this.onmessage?.({ data });
      }
    }
  }
}
