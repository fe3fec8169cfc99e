// Files in messages: small images are shown, everything else is a button that
// saves it. Names and contents are other people's: they become text and pixels,
// never markup, and nothing of theirs is opened in this page.

import { el } from "./ui.js";

const images = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const shownMost = 10 * 2 ** 20; // a larger image is a button
export const filesMost = 10; // in a message

/** A place for a file, filled when it is known what it is. grow(f) is to run f,
 *  which makes the message higher. */
export function fileNode(client, id, grow) {
  const node = el("span", { className: "file", textContent: "…" });
  show(client, id, node, grow).catch((err) => {
    node.classList.add("missing");
    node.textContent = err.status === 404 ? "A file that is gone" : "A file that can't be fetched now";
  });
  return node;
}

async function show(client, id, node, grow) {
  const head = await client.attachment(id, "HEAD");
  const type = head.headers.get("Content-Type"), size = Number(head.headers.get("Content-Length"));
  const name = nameIn(head.headers.get("Content-Disposition") ?? "");
  if (images.has(type) && size <= shownMost) {
    const img = el("img", { alt: name, title: name, src: URL.createObjectURL(await content(client, id, type)) });
    const shown = await img.decode().then(() => true, () => false); // it may be broken, or claim to be an image
    if (shown && node.isConnected) return grow(() => node.replaceChildren(img));
    URL.revokeObjectURL(img.src);
  }
  const button = el("button", { type: "button", title: "Save", onclick: () => save(client, id, name, button) }, `${name} (${sizeOf(size)})`);
  grow(() => node.replaceChildren(button));
}

/** The file's bytes, as a type that we chose. */
async function content(client, id, type) {
  const res = await client.attachment(id);
  return new Blob([await res.arrayBuffer()], { type });
}

async function save(client, id, name, button) {
  button.disabled = true;
  try {
    const url = URL.createObjectURL(await content(client, id, "application/octet-stream"));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch {
    button.textContent = `${name}: it can't be fetched now`;
  }
  button.disabled = false;
}

/** The name in a Content-Disposition header, in either of its forms. */
export function nameIn(header) {
  const extended = /filename\*=utf-8''([^;]+)/i.exec(header);
  if (extended) return decodeURIComponent(extended[1]);
  const quoted = /filename="((?:\\.|[^"\\])*)"/.exec(header);
  if (quoted) return quoted[1].replace(/\\(.)/g, "$1");
  return /filename=([^;]+)/.exec(header)?.[1] ?? "file";
}

export function sizeOf(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} KB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
