// The latest requests, without content.

import { json, listen } from "./service.js";
import { card, count, element, failure, millis, table } from "./shapes.js";

const MOST = 1000;
const COLUMNS = [
  ["time", false], ["key", false], ["API", false], ["model", false], ["status", false], ["first token", true], ["total", true],
  ["read", true], ["written", true], ["origin", false], ["id", false],
];

export async function requests(page) {
  let known = [];
  const filter = element("input", { type: "search", placeholder: "model, key, status, id …", "aria-label": "Filter" });
  const pause = element("input", { type: "checkbox" });
  const body = element("div");
  page.append(element("div", { class: "bar" }, filter, element("label", {}, pause, "hold still")), card("Requests", null, body));
  const draw = () => {
    const word = filter.value.trim().toLowerCase();
    const shown = known.filter((one) => !word || JSON.stringify(Object.values(one)).toLowerCase().includes(word));
    if (shown.length === 0) {
      body.replaceChildren(element("p", { class: "note" }, known.length ? "No request is like this." : "No request yet."));
    } else {
      body.replaceChildren(table(COLUMNS, shown.slice(0, MOST).map(row)));
    }
  };
  filter.addEventListener("input", draw);
  const end = listen("request", (one) => {
    known = [one, ...known].slice(0, MOST);
    if (!pause.checked) draw();
  });
  try {
    const before = (await json("/admin/requests")).data;
    const heard = known;
    known = [...heard.filter((one) => !before.some((other) => other.id === one.id)), ...before];
    draw();
  } catch (error) {
    body.replaceChildren(failure(error));
  }
  return end;
}

function row(one) {
  const time = new Date(one.at);
  const cells = [
    element("time", { datetime: time.toISOString(), title: time.toLocaleString() }, time.toLocaleTimeString()),
    one.key ?? "–", one.api + (one.stream ? " ⇉" : ""), one.model || "–", one.code ? `${one.status} ${one.code}` : String(one.status),
    millis(one.first_token_ms), millis(one.total_ms), count(one.prompt_tokens), count(one.completion_tokens), one.origin || "–",
    element("code", {}, one.id),
  ];
  cells.failed = one.code !== "";
  return cells;
}
