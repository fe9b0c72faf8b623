// A request of one's own: what it becomes on its way, live, and what comes of it.

import { call, json, lines, post } from "./service.js";
import { card, editor, element, failure } from "./shapes.js";

const PAUSE = 250;
const APIS = {
  "/v1/chat/completions": (model, stream) => ({ model, stream, messages: [{ role: "user", content: "Hi!" }] }),
  "/v1/responses": (model, stream) => ({ model, stream, store: false, input: "Hi!" }),
  "/v1/messages": (model, stream) => ({ model, stream, max_tokens: 1000, messages: [{ role: "user", content: "Hi!" }] }),
  "/v1/completions": (model, stream) => ({ model, stream, prompt: "Once upon a time" }),
  "/api/chat": (model, stream) => ({ model, stream, messages: [{ role: "user", content: "Hi!" }] }),
};

export async function playground(page) {
  const api = element("select", {}, ...Object.keys(APIS).map((path) => element("option", {}, path)));
  const model = element("select", { id: "model" });
  const request = editor("", { id: "request" });
  const run = element("button", { class: "main" }, "Run");
  const stop = element("button", { disabled: true }, "Stop");
  const rendered = element("div", { id: "rendered" });
  const configs = element("div", { id: "configs" });
  const answer = element("pre", { id: "answer", "aria-live": "polite" });
  const raw = element("pre", { id: "raw", tabindex: 0 });
  page.append(
    element("div", { class: "bar" }, element("label", {}, "API", api), element("label", {}, "Model", model), run, stop,
      element("span", { class: "hint" }, "Ctrl + Enter runs it")),
    element("div", { class: "split" },
      element("div", {}, card("Request", null, element("label", {}, "Body", request)), configs),
      element("div", {}, card("What the process would be told", null, rendered), card("Answer", null, answer),
        card("As it came", null, raw))));
  const preset = () => {
    request.value = JSON.stringify(APIS[api.value](model.value, true), null, 2);
    request.dispatchEvent(new Event("refit"));
  };

  let edited = {};
  let timer = 0;
  const render = async () => {
    try {
      const trial = { path: api.value, request: JSON.parse(request.value), configs: edited };
      const told = await post("/admin/render", trial);
      const written = told.answer ?? told.written.join("");
      rendered.replaceChildren(
        element("pre", { tabindex: 0 }, written),
        element("p", { class: "note" }, "Command: ", element("code", {}, told.command || "none, a transform answers")));
      showConfigs(told.chain);
    } catch (error) {
      rendered.replaceChildren(failure(error));
    }
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(render, PAUSE);
  };
  const showConfigs = (chain) => {
    const names = chain.map((of) => of.guest).join();
    if (configs.dataset.chain === names && configs.firstChild) return;
    configs.dataset.chain = names;
    configs.replaceChildren(...chain.map((of) => card(of.guest, element("span", { class: "hint" }, of.world), settings(of))));
  };
  const settings = (of) => {
    const hint = element("p", { class: "hint" }, "A trial: what is shown and run here has it, and nobody else's requests.");
    const problem = element("div");
    const whole = editor(JSON.stringify(of.config, null, 2), { "aria-label": `Settings of ${of.guest}` });
    const set = (config) => {
      edited = { ...edited, [of.guest]: config };
      soon();
    };
    whole.addEventListener("input", () => {
      try {
        set(JSON.parse(whole.value));
        problem.replaceChildren();
      } catch (error) {
        problem.replaceChildren(failure(error));
      }
    });
    const texts = Object.entries(of.config ?? {}).filter(([, value]) => typeof value === "string" && value.includes("\n"));
    // A template is edited as the text that it is.
    const templates = texts.map(([name, value]) => {
      const text = editor(value, { "data-setting": name });
      text.addEventListener("input", () => {
        const config = JSON.parse(whole.value);
        config[name] = text.value;
        whole.value = JSON.stringify(config, null, 2);
        whole.dispatchEvent(new Event("refit"));
        set(config);
      });
      return element("label", {}, name, text);
    });
    return element("div", { class: "stack" }, ...templates, element("label", {}, "settings", whole), problem, hint);
  };

  let ending = null;
  const start = async () => {
    ending = new AbortController();
    [run.disabled, stop.disabled] = [true, false];
    answer.textContent = raw.textContent = "";
    try {
      // Without trial settings, the request goes the way of all others, mistakes and all.
      const isTrial = Object.keys(edited).length > 0;
      const trial = () => JSON.stringify({ path: api.value, request: JSON.parse(request.value), configs: edited });
      const response = await call(isTrial ? "/admin/run" : api.value, {
        method: "POST", body: isTrial ? trial() : request.value, signal: ending.signal,
        headers: { "content-type": "application/json" },
      });
      for await (const line of lines(response)) {
        raw.append(`${line}\n`);
        answer.append(text(line));
      }
    } catch (error) {
      if (error.name !== "AbortError") answer.replaceChildren(failure(error));
    }
    [run.disabled, stop.disabled] = [false, true];
  };
  run.addEventListener("click", start);
  stop.addEventListener("click", () => ending?.abort());
  page.addEventListener("keydown", onKey);
  function onKey(event) {
    if (event.key === "Enter" && event.ctrlKey && !run.disabled) start();
  }
  request.addEventListener("input", soon);
  for (const choice of [api, model]) choice.addEventListener("change", () => {
    edited = {};
    configs.dataset.chain = "";
    preset();
    render();
  });

  try {
    const listed = (await json("/v1/models")).data;
    model.append(...listed.map((one) => element("option", {}, one.id)));
  } catch (error) {
    rendered.replaceChildren(failure(error));
  }
  preset();
  await render();
  return () => {
    ending?.abort();
    page.removeEventListener("keydown", onKey);
  };
}

/** The words of an answer in a line of it, whatever API it is of. */
function text(line) {
  const data = line.startsWith("data: ") ? line.slice(6) : line;
  if (!data.startsWith("{")) return "";
  let event;
  try {
    event = JSON.parse(data);
  } catch {
    return "";
  }
  if (event.error) return `⚠ ${event.error.message ?? event.error}`;
  const choice = event.choices?.[0];
  const words = [
    choice?.delta?.content, choice?.message?.content, choice?.text,
    event.type === "response.output_text.delta" ? event.delta : "",
    event.delta?.text, typeof event.message === "object" ? event.message?.content : "",
    event.output?.[0]?.content?.[0]?.text, event.object ? "" : event.content?.[0]?.text,
  ];
  return words.find((word) => typeof word === "string" && word) ?? "";
}
