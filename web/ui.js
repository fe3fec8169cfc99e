// Small things the page is made of: elements, avatars, times, toasts.

/** Makes an element: el("li", { className: "x", onclick: f }, child, "text"). */
export function el(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

export const $ = (id) => document.getElementById(id);

/** A colour of one's own, from the name: the same on every screen. */
export function hue(name) {
  let h = 0;
  for (const c of name) h = (h * 31 + c.codePointAt(0)) >>> 0;
  return (h * 137) % 360;
}

export function paintAvatar(node, name) {
  node.textContent = [...name][0] ?? "?";
  node.style.setProperty("--hue", hue(name));
  node.title = name;
  return node;
}

export function avatar(name, className = "avatar small") {
  return paintAvatar(el("span", { className, ariaHidden: "true" }), name);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export const timeOf = (t) => clock.format(t);
export const exactly = (t) => full.format(t);

export function dayOf(t) {
  const days = Math.round((midnight(new Date()) - midnight(t)) / 86_400_000);
  if (days === 0) return "Today";
  if (days === 1) return "Yesterday";
  return days < 7 ? weekday.format(t) : date.format(t);
}

/** For lists: the time today, the day before that. */
export function shortly(t) {
  return midnight(t).getTime() === midnight(new Date()).getTime() ? timeOf(t) : dayOf(t);
}

/** Calls f when it has become another day: in a tab that is open over night what was today is yesterday. */
export function onNewDay(f) {
  let today = new Date();
  setInterval(() => { // a timer for midnight would not know when a machine sleeps
    if (sameDay(today, new Date())) return;
    today = new Date();
    f();
  }, 60_000);
}

const midnight = (t) => new Date(t.getFullYear(), t.getMonth(), t.getDate());
export const sameDay = (a, b) => midnight(a).getTime() === midnight(b).getTime();

/** Text with its links made clickable; everything stays text, never markup. */
export function linked(text) {
  const parts = [];
  let last = 0;
  for (const m of text.matchAll(/https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g)) {
    parts.push(text.slice(last, m.index), el("a", { href: m[0], textContent: m[0], target: "_blank", rel: "noopener noreferrer" }));
    last = m.index + m[0].length;
  }
  parts.push(text.slice(last));
  return parts;
}

/** One to three emoji and nothing else are shown large. */
export const isEmoji = (text) => /^(\p{Extended_Pictographic}(\u200d\p{Extended_Pictographic}|[\ufe0f\u{1f3fb}-\u{1f3ff}])*){1,3}$/u.test(text.trim());

export function toast(text, { bad = false } = {}) {
  const node = el("div", { className: bad ? "toast bad" : "toast", textContent: text });
  $("toasts").append(node);
  setTimeout(() => node.remove(), bad ? 7000 : 3500);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or not a secure context
    const area = el("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
