// What happens at this moment: requests, processes, plan and login of each backend.

import { json, listen } from "./service.js";
import { card, count, element, numbers, percent, pill, since, until } from "./shapes.js";

const WORDS = {
  ready: ["ready", "good"],
  starting: ["starting", ""],
  missing: ["not installed", "bad"],
  logged_out: ["logged out", "bad"],
  login_unused: ["login not used", "bad"],
  failing: ["failing", "bad"],
};

export function now(page) {
  // The plan is asked for while somebody looks.
  json("/admin/plan").catch(() => {});
  return listen("now", (state) => {
    const backends = Object.entries(state.backends);
    const sum = (name) => backends.reduce((all, [, backend]) => all + (backend[name] ?? 0), 0);
    page.replaceChildren(
      card("Service", pill(`up for ${since(state.started_at)}`), numbers([
        ["in flight", count(sum("in_flight"))],
        ["in the queue", count(sum("queued"))],
        ["warm processes", count(sum("warm"))],
        ["kept for conversations", count(sum("kept"))],
      ]), ...problems(state)),
      element("div", { class: "cards" }, ...backends.map(([name, backend]) => backendCard(name, backend))),
    );
  });
}

function problems(state) {
  const found = [
    ["configuration", state.configuration?.rejected],
    ["guests' folder", state.guests_dir?.rejected],
    ["ledger", state.ledger?.problem],
    ...["chains", "dialects"].flatMap((kind) =>
      Object.entries(state[kind] ?? {}).map(([name, of]) => [name, of.rejected])),
    ...Object.entries(state.guests ?? {}).map(([name, guest]) => [`guest ${name}`, guest.rejected]),
  ];
  return found.filter(([, what]) => what).map(([name, what]) =>
    element("p", { class: "note bad" }, `${name}: ${what}`));
}

function backendCard(name, backend) {
  const [word, kind] = WORDS[backend.status] ?? [backend.status, ""];
  const plan = backend.plan?.windows ?? [];
  return card(name, pill(word, kind),
    numbers([
      ["in flight", count(backend.in_flight), `of ${backend.max_concurrent}`],
      ["queued", count(backend.queued)],
      ["warm", count(backend.warm)],
      ["kept", count(backend.kept)],
    ]),
    ...plan.map(planWindow),
    backend.login_expires_at ? element("p", { class: "note" }, `Login ends ${until(backend.login_expires_at)}`) : null,
    backend.version ? element("p", { class: "note" }, `Version ${backend.version}, adapter ${backend.adapter}`) : null,
    backend.message ? element("p", { class: "note bad" }, backend.message) : null,
    ...(backend.remedy ?? []).map((command) => element("p", { class: "note" }, element("code", {}, command))),
    ...(backend.warnings ?? []).map((warning) => element("p", { class: "note warn" }, warning)),
  );
}

function planWindow(of) {
  const title = (of.display_name ?? of.name).replaceAll("_", " ");
  const pace = of.pace === null || of.pace === undefined ? "" : ` · pace ${of.pace.toFixed(1)}`;
  const reset = of.resets_at ? ` · reset ${until(of.resets_at)}` : "";
  return element("div", { class: "meter" },
    element("p", {}, title, element("span", {}, `${percent(of.utilization)}${pace}${reset}`)),
    element("progress", { max: 1, value: of.utilization ?? 0, "aria-label": title }));
}
