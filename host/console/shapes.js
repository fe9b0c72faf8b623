// Elements, numbers and times as the pages show them.

/** An element: `element("td", { class: "n" }, "12", other)`. Text is never read as HTML. */
export function element(tag, attributes = {}, ...children) {
  const made = tag.includes(":")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const plain = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (number) => (number === null || number === undefined ? "–" : plain.format(number));
export const compact = (number) => (number === null || number === undefined ? "–" : short.format(number));
export const percent = (share) => (share === null || share === undefined ? "unknown" : `${Math.round(share * 100)} %`);
export const dollars = (cost) => (cost === null || cost === undefined ? "–" : `$${cost.toFixed(cost < 1 ? 4 : 2)}`);

export function millis(time) {
  if (time === null || time === undefined) return "–";
  return time < 10_000 ? `${count(time)} ms` : `${(time / 1000).toFixed(1)} s`;
}

/** How long until a time in seconds since 1970, such as "in 3 h 20 min". */
export function until(seconds) {
  const left = Math.round(seconds - Date.now() / 1000);
  const [days, hours, minutes] = [Math.floor(left / 86400), Math.floor(left / 3600), Math.floor(left / 60)];
  if (left <= 0) return "now";
  if (days >= 2) return `in ${days} days`;
  if (hours >= 1) return `in ${hours} h ${minutes % 60} min`;
  return minutes >= 1 ? `in ${minutes} min` : `in ${left} s`;
}

export function since(seconds) {
  const gone = Math.max(0, Math.round(Date.now() / 1000 - seconds));
  if (gone >= 172_800) return `${Math.floor(gone / 86400)} days`;
  if (gone >= 3600) return `${Math.floor(gone / 3600)} h ${Math.floor(gone / 60) % 60} min`;
  return gone >= 60 ? `${Math.floor(gone / 60)} min` : `${gone} s`;
}

/** A list of numbers with their names. */
export function numbers(pairs) {
  return element("dl", { class: "numbers" }, ...pairs.map(([name, value, more]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value, more ? element("small", {}, ` ${more}`) : null))));
}

export function pill(text, kind = "") {
  return element("span", { class: `pill ${kind}` }, text);
}

export function card(title, side, ...children) {
  const label = element("h2", {}, title);
  return element("section", { class: "card" }, element("header", {}, label, side), ...children);
}

/** A table; `columns` are `[title, isNumber]`, each row is an array of texts or elements, with `failed` set on bad ones. */
export function table(columns, rows) {
  const cell = (tag) => (content, column) =>
    element(tag, { class: columns[column][1] ? "n" : undefined, scope: tag === "th" ? "col" : undefined }, content);
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, element("table", {},
    element("thead", {}, element("tr", {}, ...columns.map(([title], column) => cell("th")(title, column)))),
    element("tbody", {}, ...rows.map((row) => element("tr", { class: row.failed ? "failed" : undefined }, ...row.map(cell("td")))))));
}

/** A text area that is as high as its text. */
export function editor(text, attributes) {
  const area = element("textarea", { class: "code", spellcheck: "false", ...attributes });
  const fit = () => { area.rows = Math.min(30, area.value.split("\n").length + 1); };
  area.value = text;
  area.addEventListener("input", fit);
  area.addEventListener("refit", fit);
  fit();
  return area;
}

/** Says what went wrong, where it went wrong. */
export function failure(error) {
  return element("p", { class: "note bad", role: "alert" }, error.message);
}
