// The guests that serve, and the earlier components that are kept of each.

import { json, listen, post } from "./service.js";
import { card, count, element, failure, pill } from "./shapes.js";

export async function guests(page) {
  const say = element("p", { class: "note", role: "status" });
  const body = element("div", { class: "cards" });
  const act = async (what, path) => {
    try {
      await post(path);
      say.replaceChildren(`${what}: done`);
    } catch (error) {
      say.replaceChildren(failure(error));
    }
    await fill();
  };
  const fill = async () => {
    try {
      const told = await json("/admin/guests");
      const all = Object.entries(told.guests);
      body.replaceChildren(...all.map(([name, guest]) => guestCard(name, guest, act)));
    } catch (error) {
      body.replaceChildren(failure(error));
    }
  };
  const reload = element("button", { onclick: () => act("Reload", "/admin/reload") }, "Read files again");
  page.append(element("div", { class: "bar" }, reload,
    element("span", { class: "hint" }, "New files are taken up within a second by themselves.")), say, body);
  await fill();
  let known = "";
  // A guest that was swapped is seen at once.
  return listen("now", (state) => {
    const now = JSON.stringify(state.guests);
    if (known && known !== now) fill();
    known = now;
  });
}

function guestCard(name, guest, act) {
  const kept = (guest.kept ?? []).filter((one) => one.digest !== guest.digest);
  const origin = guest.origin?.replace("_", " ") ?? (guest.compiling ? "" : "not loaded");
  const state = [origin, guest.compiling && "compiling"].filter(Boolean).join(", ");
  return card(name, pill(state, guest.rejected ? "bad" : ""),
    element("p", { class: "note" }, guest.summary ?? ""),
    element("p", { class: "note" }, `${guest.world ?? "guest"} ${guest.version ?? ""} · generation ${guest.generation ?? "–"} · `,
      element("code", {}, (guest.digest ?? "").slice(0, 12))),
    guest.calls?.count ? element("p", { class: "note" },
      `${count(guest.calls.count)} calls, ${guest.calls.mean_us.toFixed(guest.calls.mean_us < 100 ? 1 : 0)} µs in the mean, ${count(guest.calls.traps)} traps`) : null,
    guest.calls?.last_error ? element("p", { class: "note warn" }, `Last: ${guest.calls.last_error}`) : null,
    guest.rejected ? element("p", { class: "note bad" }, guest.rejected) : null,
    ...kept.slice(0, 4).map((one) => element("p", { class: "note bar" },
      element("code", {}, one.digest.slice(0, 12)),
      element("button", {
        onclick: () => act(`${name} goes back to ${one.digest.slice(0, 12)}`, `/admin/guests/${encodeURIComponent(name)}/rollback?digest=${one.digest}`),
      }, "Go back to it"))));
}
