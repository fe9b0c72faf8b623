// What was used, out of the ledger.

import { call, json } from "./service.js";
import { card, compact, count, dollars, element, failure, millis, numbers, table } from "./shapes.js";

const DAYS = [7, 30, 90];

export async function usage(page) {
  const days = element("select", { id: "days" }, ...DAYS.map((number) =>
    element("option", { value: number, selected: number === 30 }, `${number} days`)));
  const body = element("div", { class: "cards" });
  const save = element("button", { onclick: () => download(first(days.value)) }, "Save as CSV");
  page.append(element("div", { class: "bar" }, element("label", {}, "Time", days), save), body);
  const fill = async () => {
    try {
      const [byDay, byModel, byKey] = await Promise.all(["day", "model", "key"].map((by) =>
        json(`/admin/usage?by=${by}&since=${first(days.value)}`)));
      body.replaceChildren(...cards(byDay.data, byModel.data, byKey.data, Number(days.value)));
    } catch (error) {
      body.replaceChildren(card("Usage", null, failure(error)));
    }
  };
  days.addEventListener("change", fill);
  await fill();
}

/** The first of so many days, the last of which is today. */
function first(days) {
  return day(Date.now() - (days - 1) * 86_400_000);
}

function day(time) {
  return new Date(time).toISOString().slice(0, 10);
}

async function download(since) {
  const response = await call(`/admin/usage?by=day,key,model,api&since=${since}&format=csv`);
  const link = element("a", { href: URL.createObjectURL(await response.blob()), download: `usage-${since}.csv` });
  link.click();
  URL.revokeObjectURL(link.href);
}

function cards(byDay, byModel, byKey, span) {
  const sum = (name) => byDay.reduce((all, one) => all + (one[name] ?? 0), 0);
  const known = byDay.some((one) => one.cost_usd !== null);
  const found = new Map(byDay.map((one) => [one.day, one]));
  const dates = Array.from({ length: span }, (_, back) => day(Date.now() - (span - 1 - back) * 86_400_000));
  const each = (name) => dates.map((date) => found.get(date)?.[name] ?? 0);
  return [
    card("All", null, numbers([
      ["requests", compact(sum("requests"))],
      ["failed", compact(sum("failed"))],
      ["tokens read", compact(sum("prompt_tokens"))],
      ["tokens written", compact(sum("completion_tokens"))],
      ["at API prices", known ? dollars(sum("cost_usd")) : "–"],
    ])),
    card("Requests a day", null, plot(dates, each("requests").map((all, at) => [all - each("failed")[at], each("failed")[at]])),
      legend("answered", "not answered in full")),
    card("Tokens a day", null, plot(dates, each("prompt_tokens").map((read, at) => [each("completion_tokens")[at], read])),
      legend("written", "read")),
    card("Time to the first token, mean of a day", null, plot(dates, each("mean_first_token_ms").map((time) => [time, 0]), " ms")),
    wide(card("By model", null, breakdown("model", byModel))),
    wide(card("By key", null, breakdown("key", byKey))),
  ];
}

function wide(made) {
  made.classList.add("wide");
  return made;
}

function breakdown(by, sums) {
  if (sums.length === 0) return element("p", { class: "note" }, "Nothing yet.");
  const columns = [[by, false], ["requests", true], ["failed", true], ["read", true], ["written", true], ["cost", true], ["first token", true]];
  return table(columns, sums.map((sum) => [
    sum[by] || (by === "key" ? "no name" : "unknown"), count(sum.requests), count(sum.failed), compact(sum.prompt_tokens),
    compact(sum.completion_tokens), dollars(sum.cost_usd), millis(sum.mean_first_token_ms),
  ]));
}

function legend(one, other) {
  return element("p", { class: "legend" },
    element("span", {}, element("i"), one), element("span", {}, element("i", { class: "second" }), other));
}

/** Bars, one a day, each of two parts that stand on each other. */
function plot(dates, bars, unit = "") {
  const [width, height, left, bottom, top] = [520, 170, 44, 18, 8];
  const most = nice(Math.max(1, ...bars.map(([one, other]) => one + other)));
  const step = (width - left) / dates.length;
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    parts.push(element("svg:line", { class: "grid", x1: left, x2: width, y1: y(most * share), y2: y(most * share) }));
    parts.push(element("svg:text", { x: left - 6, y: y(most * share) + 4, "text-anchor": "end" }, compact(most * share)));
  }
  bars.forEach(([one, other], at) => {
    const x = left + at * step + step * 0.15;
    const bar = (from, to, kind) => to > from && parts.push(element("svg:rect", {
      class: `bar-part ${kind}`, x, width: step * 0.7, y: y(to), height: Math.max(1, y(from) - y(to)), rx: Math.min(2, step / 5),
    }, element("svg:title", {}, `${dates[at]}: ${count(one)}${other ? ` and ${count(other)}` : ""}${unit}`)));
    bar(0, one, "");
    bar(one, one + other, "second");
  });
  for (const at of [0, Math.floor(dates.length / 2), dates.length - 1]) {
    const anchor = at === 0 ? "start" : at === dates.length - 1 ? "end" : "middle";
    const x = anchor === "start" ? left : anchor === "end" ? width : left + (at + 0.5) * step;
    parts.push(element("svg:text", { x, y: height - 4, "text-anchor": anchor }, dates[at].slice(5)));
  }
  const total = bars.reduce((all, [one, other]) => all + one + other, 0);
  return element("svg:svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${count(total)}${unit} in ${dates.length} days` }, ...parts);
}

/** The next number above that reads well: 1, 2, 4, 5 or 10 times a power of ten. */
function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((number) => number >= most);
}
