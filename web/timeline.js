// The messages of one room as they are shown: in the room's order, in groups,
// with what the user is sending at the end. It keeps itself at the bottom unless
// somebody has scrolled up, and asks for older messages near the top.

import { compareIDs } from "./client.js";
import { $, avatar, dayOf, el, exactly, hue, isEmoji, linked, sameDay, timeOf } from "./ui.js";

const groupMs = 5 * 60_000; // a longer pause begins a new group
const nearBottom = 90; // pixels that still count as the bottom
const shownMost = 300; // with more, each message that comes takes the browser longer …
const shownAgain = 150; // … so the oldest go, down to this, as soon as nobody looks at them

export class Timeline {
  #list = $("messages");
  #scroll = $("scroll");
  #pill = $("pill");
  #items = []; // in order; system lines share the ID of the message before them
  #pending = []; // what is being sent
  #me; #older; #seen; #file;
  #more = false;
  #loading = false;
  #missed = 0; // came while scrolled up
  #watch;

  /** older(): asks for messages before the first; seen(id): the newest is in view;
   *  file(id, grow): the node of a file. */
  constructor({ me, older, seen, file }) {
    this.#me = me;
    this.#older = older;
    this.#seen = seen;
    this.#file = file;
    this.#list.replaceChildren();
    this.#pill.hidden = true;
    this.#pill.onclick = () => this.toBottom(true);
    this.#scroll.onscroll = () => this.atBottom && this.#reachedBottom();
    this.#watch = new IntersectionObserver(([e]) => e.isIntersecting && this.#loadOlder(), { root: this.#scroll, rootMargin: "300px 0px 0px" });
    this.#watch.observe($("top"));
  }

  dispose() {
    this.#watch.disconnect();
    this.#watch = null;
    this.#scroll.onscroll = null;
    letGo(this.#list);
    this.#list.replaceChildren();
  }

  get oldest() { return this.#items[0]?.id; }
  get atBottom() {
    const s = this.#scroll;
    return s.scrollHeight - s.scrollTop - s.clientHeight < nearBottom;
  }

  /** Messages from history, newest first, and whether there are older ones.
   *  unreadAfter: the first message after it gets the "new" line. */
  addHistory(messages, more, unreadAfter) {
    const first = this.#items.length === 0;
    const height = this.#scroll.scrollHeight, top = this.#scroll.scrollTop;
    for (const m of [...messages].reverse()) this.#insert(this.#item(m));
    this.#more = more;
    $("top").textContent = more ? "" : "This is where it begins";
    if (unreadAfter) this.#markUnread(unreadAfter);
    if (first) this.toBottom();
    else if (!this.#anchors) this.#scroll.scrollTop = top + this.#scroll.scrollHeight - height;
  }
  #anchors = CSS.supports("overflow-anchor", "auto");

  /** A message that has just come (or was paged after a gap). */
  add(m) {
    const stay = this.atBottom, mine = m.from === this.#me;
    const sending = mine && m.key && this.#pending.find((p) => p.key === m.key);
    if (sending) this.#settle(sending, m);
    else if (m.repeats && this.#items.some((i) => i.id === m.repeats)) return;
    else if (!this.#insert(this.#item(m), true)) return;
    if (stay) this.toBottom();
    else if (!mine) this.#missOne();
  }

  /** A line that is no message, such as "bob joined". */
  note(text) {
    const stay = this.atBottom;
    const node = el("li", { className: "system", textContent: text });
    const last = this.#items.at(-1);
    this.#items.push({ id: last?.id ?? "0-0", at: last?.at ?? new Date(), from: null, node });
    this.#list.insertBefore(node, this.#pending[0]?.node ?? null);
    if (stay) this.toBottom();
  }

  /** Names the days anew. */
  newDay() {
    for (const { at, node } of this.#items) {
      const day = node.querySelector(".sep:not(.new)");
      if (day) day.textContent = dayOf(at);
    }
  }

  /** Shows what is being sent; retry() is for its button, should it fail. */
  addPending(key, text, retry) {
    const at = new Date();
    const item = { key, at, from: this.#me, text };
    item.node = this.#render(item);
    item.node.classList.add("pending", "first", "last", "live");
    item.retry = retry;
    this.#pending.push(item);
    this.#list.append(item.node);
    this.toBottom();
  }

  sent(key, m) {
    const item = this.#pending.find((p) => p.key === key);
    if (item) this.#settle(item, m); // otherwise the socket was faster
  }

  retrying(key) {
    const item = this.#pending.find((p) => p.key === key);
    if (item) item.meta.replaceChildren("Trying again…");
  }

  failed(key, why) {
    const item = this.#pending.find((p) => p.key === key);
    if (!item) return;
    item.node.classList.replace("pending", "failed");
    item.meta.replaceChildren(`Not sent: ${why}`, el("button", {
      textContent: "Try again",
      onclick: () => {
        item.node.classList.replace("failed", "pending");
        item.meta.replaceChildren("Sending…");
        item.retry();
      },
    }));
  }

  /** Runs f, which makes a message higher, and stays at the bottom. */
  #grow = (f) => {
    const stay = this.atBottom;
    f();
    if (stay && this.#watch) this.toBottom();
  };

  toBottom(smooth = false) {
    this.#scroll.scrollTo({ top: this.#scroll.scrollHeight, behavior: smooth ? "smooth" : "instant" });
    this.#reachedBottom();
  }

  // ---- inside ----

  #reachedBottom() {
    this.#missed = 0;
    this.#pill.hidden = true;
    const last = this.#items.findLast((i) => i.from !== null);
    if (last) this.#seen(last.id);
    this.#shorten();
  }

  /** Lets the oldest go: they are paged again by who scrolls up. */
  #shorten() {
    if (this.#items.length <= shownMost || this.#loading) return; // what is being loaded is to stand before them
    const from = this.#items.findIndex((i, at) => i.from !== null && at >= this.#items.length - shownAgain);
    if (from < 0) return; // nothing but lines that history does not know
    for (const { node } of this.#items.splice(0, from)) {
      letGo(node);
      node.remove();
    }
    this.#more = true;
    $("top").textContent = "";
    this.#group(0);
  }

  #missOne() {
    this.#missed++;
    this.#pill.textContent = this.#missed === 1 ? "1 new message ↓" : `${this.#missed} new messages ↓`;
    this.#pill.hidden = false;
  }

  async #loadOlder() {
    if (!this.#more || this.#loading) return;
    this.#loading = true;
    $("top").textContent = "Loading…";
    try {
      await this.#older();
    } finally {
      this.#loading = false;
      // It tells changes only: what is still in view is told again this way.
      this.#watch?.unobserve($("top"));
      this.#watch?.observe($("top"));
    }
  }

  #item(m) {
    const item = { id: m.id, key: m.key, from: m.from, at: new Date(m.sent_at), text: m.body?.text ?? "", files: m.body?.attachments ?? [] };
    item.node = this.#render(item);
    return item;
  }

  #render(item) {
    const mine = item.from === this.#me;
    const node = el("li", { title: exactly(item.at) });
    if (mine) node.classList.add("mine");
    if (isEmoji(item.text)) node.classList.add("big");
    node.style.setProperty("--hue", hue(item.from));
    item.meta = el("div", { className: "meta" }, item.id ? timeOf(item.at) : "Sending…");
    item.bubble = el("div", { className: "bubble" }, ...linked(item.text), ...(item.files ?? []).map((id) => this.#file(id, this.#grow)));
    node.append(item.bubble, item.meta);
    if (item.id) node.dataset.id = item.id;
    return node;
  }

  /** Puts an item in its place; false when it is there already. */
  #insert(item, live = false) {
    let at = this.#items.length;
    while (at > 0 && compareIDs(this.#items[at - 1].id, item.id) > 0) at--;
    for (let i = at; i > 0 && this.#items[i - 1].id === item.id; i--) {
      if (this.#items[i - 1].from !== null) return false;
    }
    this.#items.splice(at, 0, item);
    const next = this.#items[at + 1]?.node ?? this.#pending[0]?.node ?? null;
    this.#list.insertBefore(item.node, next);
    if (live) item.node.classList.add("live");
    this.#group(at - 1);
    this.#group(at);
    this.#group(at + 1);
    return true;
  }

  /** What was being sent is in the room now. */
  #settle(sending, m) {
    this.#pending.splice(this.#pending.indexOf(sending), 1);
    sending.node.remove();
    const item = this.#item(m);
    this.#insert(item);
    if (this.atBottom) this.toBottom();
  }

  /** Decides whether an item begins or ends a group, and what stands above it. */
  #group(i) {
    const item = this.#items[i];
    if (!item || item.from === null) return;
    const before = this.#items[i - 1], after = this.#items[i + 1];
    const together = (a, b) => a && b && a.from === b.from && sameDay(a.at, b.at) && b.at - a.at < groupMs;
    const first = !together(before, item) || item.unread, last = !together(item, after) || after.unread;
    const { node } = item;
    node.classList.toggle("first", first);
    node.classList.toggle("last", last);
    for (const old of node.querySelectorAll(".sep, .author, .avatar")) old.remove();
    if (!before || !sameDay(before.at, item.at)) node.prepend(el("div", { className: "sep", textContent: dayOf(item.at) }));
    if (item.unread) item.bubble.before(el("div", { className: "sep new", textContent: "New" }));
    if (item.from === this.#me) return;
    if (first) item.bubble.before(el("div", { className: "author", textContent: item.from }));
    if (last) item.bubble.before(avatar(item.from));
  }

  #markUnread(after) {
    const i = this.#items.findIndex((x) => x.from !== null && compareIDs(x.id, after) > 0);
    if (i <= 0 || this.#items[i].from === this.#me) return;
    this.#items[i].unread = true;
    this.#group(i - 1);
    this.#group(i);
  }
}

/** An image is kept by the page, not by its node, until it is let go. */
function letGo(node) {
  for (const img of node.querySelectorAll("img")) URL.revokeObjectURL(img.src);
}
