// The page of `madang dev`: a name, rooms, and one of them open.

import { Client, Problem, newKey } from "./client.js";
import { fileNode, filesMost } from "./files.js";
import { Timeline } from "./timeline.js";
import { $, avatar, copy, el, onNewDay, paintAvatar, shortly, toast } from "./ui.js";

const pageSize = 50;
const readAfterMs = 400; // the read marker follows at most this often

const config = await (await fetch("dev/config.json")).json();
let me = null;
let client = null;
let timeline = null;
let current = null; // ID of the open room
const rooms = new Map(); // ID → { id, name, unread, last: {from, text, at}, read }

// ---- coming in ----

function welcome() {
  $("welcome").hidden = false;
  const input = $("name");
  input.focus();
  $("enter").onsubmit = (e) => {
    e.preventDefault();
    const name = input.value.trim();
    if (!name) return;
    sessionStorage.setItem("madang-name", name); // per tab: each may be somebody else
    $("welcome").hidden = true;
    start(name);
  };
}

/** dev hands a token to whoever asks; a real deployment's back end does this. */
async function token() {
  const res = await fetch("dev/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user: me }),
  });
  const answer = await res.json().catch(() => ({}));
  if (!res.ok) throw new Problem(res.status, answer);
  return answer.token;
}

function start(name) {
  me = name;
  $("app").hidden = false;
  $("my-name").textContent = me;
  paintAvatar($("my-avatar"), me);
  // ?transport=sse tries what pages do where WebSockets do not get through.
  const transport = new URLSearchParams(location.search).get("transport") ?? undefined;
  client = new Client({ api: config.api, ws: config.ws, token, transport });
  client.on("state", showState);
  client.on("message", onMessage);
  client.on("joined", onJoined);
  client.on("left", onLeft);
  client.on("rooms", (what) => attempt(roomsAgain, what));
  client.on("fault", (err) => passes(err) || toast(err.message, { bad: true }));
  client.connect();
  onNewDay(() => {
    timeline?.newDay();
    showRooms();
  });
  window.addEventListener("hashchange", () => attempt(openFromURL));
  attempt(openFromURL);
}

/** Whether it is tried again anyway: the banner tells of that. */
const passes = (err) => err instanceof TypeError || err instanceof DOMException // fetch: no network, no answer in time
  || err instanceof Problem && (err.status === 429 || err.status >= 500);

/** Runs something for the user; what goes wrong is told. */
async function attempt(f, ...args) {
  try {
    return await f(...args);
  } catch (err) {
    toast(err instanceof Problem ? err.message : "The server can't be reached", { bad: true });
  }
}

// ---- the connection ----

const states = { online: "Connected", connecting: "Connecting…", waiting: "Reconnecting…", offline: "Offline" };
let bannerTimer = 0; // of this outage, however often it is tried again; 0: there is none

function showState({ state, retryInMs }) {
  $("dot").className = `dot ${state}`;
  $("state").textContent = states[state];
  if (state === "online") {
    clearTimeout(bannerTimer);
    bannerTimer = 0;
    $("banner").hidden = true;
    return;
  }
  const again = state === "offline" ? "" : retryInMs > 1500 ? ` Trying again in ${Math.round(retryInMs / 1000)} s…` : " Trying again…";
  $("banner").textContent = `No connection.${again}`;
  bannerTimer ||= setTimeout(() => ($("banner").hidden = false), 1200); // a shorter hiccup is nobody's business
}

// ---- rooms ----

async function loadRooms() {
  const all = await client.rooms();
  const ids = new Set(all.map((r) => r.id));
  for (const id of rooms.keys()) if (!ids.has(id)) rooms.delete(id);
  await Promise.all(all.map(async (r) => {
    // Counted here from then on; and whoever holds the room goes on holding it.
    const room = rooms.get(r.id) ?? { id: r.id, last: null, read: r.read, unread: r.unread };
    room.name = r.name || r.id;
    rooms.set(r.id, room);
    if (!room.last && r.head !== "0-0") {
      try {
        const { messages: [m] } = await client.history(r.id, { limit: 1 });
        if (m && !room.last) room.last = lastOf(m);
      } catch (err) {
        if (err.status !== 403 && err.status !== 404) throw err;
        rooms.delete(r.id); // it was left this very moment, and the list does not know yet
      }
    }
  }));
  showRooms();
}

let kept = null; // ID of the open room while it is made again

/** Reads the rooms when they may be others than ours. The open one may not be among
 *  them any more: then it is closed. But one that the server has forgotten, as an
 *  embedded Redis does at its end, is made again, by the first who comes back: what
 *  is shown stays, and so does what could not be sent. */
async function roomsAgain({ lost }) {
  const room = rooms.get(current);
  kept = lost && room ? room.id : null;
  try {
    await loadRooms();
    if (!room || room.id !== current || rooms.has(room.id)) return;
    if (!lost) return dismiss(room);
    await client.createRoom({ id: room.id, name: room.name }).catch((err) => {
      if (err.status !== 409) throw err;
      return client.request("POST", "/dev/join", { room: room.id }); // somebody was faster
    });
    Object.assign(room, { unread: 0, read: null });
    rooms.set(room.id, room);
    await loadRooms();
    if (room.id !== current) return;
    timeline.note("The server has forgotten this room and all that is above. It was made again.");
    attempt(showMembers);
    const { messages } = await client.history(room.id, { limit: pageSize }); // those who came back sooner
    if (room.id === current) for (const m of messages.reverse()) timeline.add(m);
  } finally {
    kept = null;
  }
}

/** Closes the open room, which is none of ours any more. */
function dismiss(room) {
  if (inURL() === room.id) go("");
  else close(); // somebody has gone elsewhere this moment
  toast(`You are not in ${room.name} any more`);
}

const lastOf = (m) => ({ from: m.from, text: m.body?.text || (m.body?.attachments ? "sent a file" : ""), at: new Date(m.sent_at) });

function showRooms() {
  const sorted = [...rooms.values()].sort((a, b) => (b.last?.at ?? 0) - (a.last?.at ?? 0) || a.name.localeCompare(b.name));
  $("rooms").replaceChildren(...sorted.map((r) => el("li", {},
    (() => {
      const button = el("button", { onclick: () => go(r.id) },
        avatar(r.name, "avatar square"),
        el("span", { className: "lines" },
          el("span", { className: "line" },
            el("span", { className: "name", textContent: r.name }),
            r.last && el("time", { textContent: shortly(r.last.at) })),
          el("span", { className: "line" },
            el("span", { className: "last" }, ...(r.last
              ? [el("bdi", { textContent: r.last.from === me ? "You" : r.last.from }), ": ", el("bdi", { textContent: r.last.text })] : ["No messages yet"])),
            r.unread ? el("span", { className: "badge", textContent: r.unread > 99 ? "99+" : r.unread }) : null)));
      button.ariaCurrent = String(r.id === current);
      return button;
    })())));
  $("no-rooms").hidden = sorted.length > 0;
  const unread = sorted.reduce((n, r) => n + r.unread, 0);
  document.title = (unread ? `(${unread}) ` : "") + (current ? `${rooms.get(current)?.name ?? current} · madang` : "madang");
}

const go = (id) => { location.hash = id ? `room=${encodeURIComponent(id)}` : ""; };

const inURL = () => new URLSearchParams(location.hash.slice(1)).get("room");

async function openFromURL() {
  const id = inURL();
  if (!id) {
    close();
    return loadRooms();
  }
  if (id !== current) await open(id);
}

/** Opens a room, joining it first when it was only a link so far. */
async function open(id) {
  if (!rooms.has(id)) await loadRooms();
  if (!rooms.has(id)) {
    const res = await client.request("POST", "/dev/join", { room: id });
    if (res.created) toast(`Room ${id} was made`);
    await loadRooms();
  }
  if (id !== inURL()) return; // somebody has gone elsewhere meanwhile, and may be writing there
  close();
  current = id;
  const room = rooms.get(id);
  $("app").classList.add("in-room");
  $("empty").hidden = true;
  $("room").hidden = false;
  $("room-name").textContent = room.name;
  paintAvatar($("room-avatar"), room.name);
  const unreadAfter = room.unread > 0 ? room.read : null;
  const mine = (timeline = new Timeline({
    me,
    older: () => attempt(async () => {
      const page = await client.history(id, { before: mine.oldest, limit: pageSize });
      if (timeline === mine) mine.addHistory(page.messages, page.more);
    }),
    seen: (last) => timeline === mine && markRead(room, last),
    file: (id, grow) => fileNode(client, id, grow),
  }));
  for (const item of unsent) if (item.room === id) item.show();
  showRooms();
  attempt(showMembers);
  const page = await client.history(id, { limit: pageSize });
  if (timeline !== mine) return;
  mine.addHistory(page.messages, page.more, unreadAfter);
  if (matchMedia("(hover: hover)").matches) $("text").focus();
}

function close() {
  timeline?.dispose();
  timeline = null;
  current = null;
  $("app").classList.remove("in-room");
  $("empty").hidden = false;
  $("room").hidden = true;
  showRooms();
}

function markRead(room, id) {
  if (document.hidden) return;
  if (room.unread) {
    room.unread = 0;
    showRooms();
  }
  if (room.read === id) return;
  room.read = id;
  clearTimeout(room.readTimer); // each has its own: who looks through rooms has read them all
  room.readTimer = setTimeout(() => client.markRead(room.id, id).catch(() => {}), readAfterMs); // the next one makes up for it
}
document.addEventListener("visibilitychange", () => timeline?.atBottom && timeline.toBottom());

// ---- what happens ----

function onMessage(m) {
  const room = rooms.get(m.room);
  for (const item of unsent) if (m.from === me && item.key === m.key && item.room === m.room) unsent.delete(item);
  if (room) {
    room.last = lastOf(m);
    if (m.from === me) { // who sends has read what was there, from another device too
      room.unread = 0;
      room.read = m.id;
    } else if (m.room !== current || document.hidden || !timeline?.atBottom) room.unread++;
  }
  if (m.room === current) timeline.add(m);
  showRooms();
}

function onJoined({ room, user }) {
  if (user === me) return attempt(loadRooms);
  if (room !== current) return;
  timeline.note(`${user} joined`);
  attempt(showMembers);
}

function onLeft({ room, user }) {
  if (user === me) {
    if (room === current && room !== kept) dismiss(rooms.get(room) ?? { id: room, name: room });
    rooms.delete(room);
    return showRooms();
  }
  if (room !== current) return;
  timeline.note(`${user} left`);
  attempt(showMembers);
}

async function showMembers() {
  const room = current;
  const { members } = await client.members(room);
  if (room !== current) return;
  const names = members.map((m) => (m.user === me ? "you" : m.user));
  $("room-members").textContent = names.length === 1 ? "Only you so far: share the link" : `${names.length} members: ${names.join(", ")}`;
  $("members").replaceChildren(...members.map((m) => el("li", {}, avatar(m.user), m.user === me ? `${m.user} (you)` : m.user, el("small", { textContent: m.role }))));
}

// ---- sending ----

const input = $("text");
const unsent = new Set(); // what was not answered yet, nor has come by the socket, in the order of its writing

$("composer").onsubmit = (e) => {
  e.preventDefault();
  const text = input.value.trim();
  if (!text || !timeline) return;
  input.value = "";
  fit();
  post(text, () => ({ type: "text", text }));
};

/** Sends what body() makes, and shows something until it is sent: also to who has
 *  been elsewhere and is back. */
function post(shown, body) {
  const room = current, key = newKey();
  const there = () => (room === current ? timeline : null);
  const item = { room, key, failed: "", show: () => {
    timeline.addPending(key, shown, send);
    if (item.failed) timeline.failed(key, item.failed);
  } };
  const send = async () => {
    item.failed = "";
    try {
      const made = await body();
      const m = await inTurn(room, () => client.send(room, made, { key, onRetry: () => there()?.retrying(key) }));
      unsent.delete(item);
      there()?.sent(key, m);
    } catch (err) {
      if (!unsent.has(item)) return; // only the answer is missing
      item.failed = err instanceof Problem ? err.message : "no connection";
      if (there()) timeline.failed(key, item.failed);
      else toast(`A message to ${rooms.get(room)?.name ?? room} was not sent`, { bad: true });
    }
  };
  unsent.add(item);
  item.show();
  send();
}

const turns = new Map(); // by room: the last send to it

/** Sends to a room one after the other: requests overtake one another, and one that is
 *  repeated would come behind what was written after it. */
function inTurn(room, send) {
  const turn = Promise.resolve(turns.get(room)).then(send, send);
  turns.set(room, turn);
  return turn;
}

$("attach").onclick = () => $("files").click();
$("files").onchange = () => {
  const files = [...$("files").files];
  $("files").value = ""; // the same file may be chosen again
  if (!files.length || !timeline) return;
  if (files.length > filesMost) return toast(`A message has ${filesMost} files at most`, { bad: true });
  let uploaded = null; // once, should the send be tried again
  post(files.map((f) => f.name).join("\n"), async () => {
    uploaded ??= (await Promise.all(files.map((f) => client.upload(f)))).map((a) => a.id);
    return { type: "text", attachments: uploaded };
  });
};

function fit() {
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}
input.oninput = fit;
input.onkeydown = (e) => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { // composing: Enter chooses a Hangul or Kanji
    e.preventDefault();
    $("composer").requestSubmit();
  }
};

// ---- dialogs and keys ----

function newRoom() {
  const dialog = $("room-dialog"), form = dialog.querySelector("form");
  form.reset();
  dialog.showModal();
  dialog.onclose = () => attempt(async () => {
    if (dialog.returnValue !== "make") return;
    const link = form.elements.open.value.trim();
    if (link) return go(link.includes("room=") ? new URLSearchParams(link.slice(link.indexOf("room="))).get("room") : link);
    const name = form.elements.name.value.trim() || `${me}'s room`;
    const members = form.elements.people.value.split(",").map((s) => s.trim()).filter(Boolean);
    const room = await client.createRoom({ name, members });
    await loadRooms();
    go(room.id);
  });
}

$("new-room").onclick = $("first-room").onclick = newRoom;
$("back").onclick = () => go("");
$("leave").onclick = () => {
  client.close();
  sessionStorage.removeItem("madang-name");
  location.reload();
};
$("share").onclick = async () => {
  await copy(location.href);
  toast("Link copied: whoever opens it joins the room");
};
$("show-members").onclick = () => {
  const dialog = $("members-dialog"), form = dialog.querySelector("form");
  form.reset();
  attempt(showMembers);
  dialog.showModal();
  dialog.onclose = () => attempt(async () => {
    const user = form.elements.user.value.trim();
    if (dialog.returnValue === "leave") await client.removeMember(current, me);
    if (dialog.returnValue === "invite" && user) await client.addMember(current, user, {});
  });
};

// In a dialog, Enter means its main button, not the first one.
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && e.target.tagName === "INPUT" && !e.isComposing) {
      e.preventDefault();
      dialog.querySelector(".row .primary").click();
    }
  });
}

document.addEventListener("keydown", (e) => {
  if (!client || document.querySelector("dialog[open]")) return;
  if ((e.ctrlKey || e.metaKey) && e.key === "k") {
    e.preventDefault();
    newRoom();
  } else if (e.altKey && (e.key === "ArrowUp" || e.key === "ArrowDown")) {
    e.preventDefault();
    const ids = [...$("rooms").querySelectorAll("button")];
    const at = ids.findIndex((b) => b.ariaCurrent === "true");
    ids.at((e.key === "ArrowDown" ? at + 1 : Math.max(at, 0) - 1) % ids.length)?.click(); // at: -1 while none is open
  } else if (current && document.activeElement === document.body && e.key.length === 1 && !e.ctrlKey && !e.metaKey) {
    input.focus(); // whoever begins to type means the message
  }
});

const known = sessionStorage.getItem("madang-name");
if (known) start(known);
else welcome();
