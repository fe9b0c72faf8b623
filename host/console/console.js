// The frame of the console: which page is shown, and what all pages share.

import { now } from "./now.js";
import { usage } from "./usage.js";
import { requests } from "./requests.js";
import { guests } from "./guests.js";
import { playground } from "./playground.js";
import { listen } from "./service.js";

const PAGES = { now, usage, requests, guests, playground };
const page = document.getElementById("page");
const status = document.getElementById("status");
let leave = null;

/** Shows the page that the address names. Each page is a function that fills an element and may return what ends it. */
async function show() {
  const name = PAGES[location.hash.slice(1)] ? location.hash.slice(1) : "now";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave?.();
  leave = null;
  page.replaceChildren();
  document.title = `${name} · claude-harness`;
  leave = (await PAGES[name](page)) ?? null;
}

listen("now", (state) => {
  status.dataset.state = state.status;
  status.textContent = `${state.status} · ${state.version}`;
});
listen("lost", () => {
  status.dataset.state = "lost";
  status.textContent = "no connection, trying again";
});

addEventListener("hashchange", () => show().then(() => page.focus()));
show();
