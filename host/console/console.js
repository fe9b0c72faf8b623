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
let turn = 0;

/** Shows the page that the address names. Each page is a function that fills an element and may return what ends it. */
async function show() {
  const name = PAGES[location.hash.slice(1)] ? location.hash.slice(1) : "now";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave?.();
  leave = null;
  turn += 1;
  const mine = turn;
  // An element of its own: what a page that was left still loads goes nowhere.
  const place = document.createElement("div");
  place.className = "page";
  page.replaceChildren(place);
  document.title = `${name} · claude-harness`;
  const end = (await PAGES[name](place)) ?? null;
  if (mine === turn) leave = end;
  else end?.();
}

listen("now", (state) => {
  status.dataset.state = state.status;
  status.textContent = `${state.status} · ${state.version}`;
});
listen("lost", () => {
  status.dataset.state = "lost";
  status.textContent = "no connection, trying again";
});

addEventListener("hashchange", () => {
  // The link to skip the head of the page.
  if (location.hash === "#page") return page.focus();
  show().then(() => page.focus());
});
show();
