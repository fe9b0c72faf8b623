// Calls of the service: the admin key, JSON, and the events that it sends.

const dialog = document.getElementById("key");
let asked = null;

/** Asks for an admin key. Several who need one at once wait for the same answer. */
function askForKey(why) {
  asked ??= new Promise((resolve) => {
    document.getElementById("key-why").textContent = why;
    const text = document.getElementById("key-text");
    text.value = "";
    dialog.showModal();
    // Without a key there is nothing to see, so it cannot be closed.
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => {
      sessionStorage.setItem("key", text.value.trim());
      asked = null;
      resolve();
    };
  });
  return asked;
}

/** A call of the service, with the key if there is one. Asks for a key when one is needed. */
export async function call(path, options = {}) {
  for (;;) {
    const key = sessionStorage.getItem("key");
    const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(path, { ...options, headers });
    // A backend that is logged out answers 401, too, and a key may be kept from a model with 403.
    if (response.status !== 401 && !(response.status === 403 && path.startsWith("/admin/"))) return response;
    const { error } = await response.clone().json();
    if (!path.startsWith("/admin/") && error.code !== "invalid_api_key") return response;
    await askForKey(key ? error.message : "This service has keys.");
  }
}

/** A call that answers with JSON. Throws what the service says of a failure. */
export async function json(path, options) {
  const response = await call(path, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error?.message ?? response.statusText);
  return body;
}

export function post(path, body) {
  return json(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
}

/** The lines of a response as they come. */
export async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

const listeners = new Map();
const latest = new Map();

/** Calls `hear` with each event of this name, and with the latest one at once. Returns what ends it. */
export function listen(name, hear) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(hear);
  if (latest.has(name)) hear(latest.get(name));
  return () => listeners.get(name).delete(hear);
}

function tell(name, data) {
  if (name === "now") latest.set(name, data);
  for (const hear of listeners.get(name) ?? []) hear(data);
}

/** Hears events for ever. `EventSource` cannot send a key, so this reads the stream itself. */
async function hearEvents() {
  for (;;) {
    try {
      let name = "";
      for await (const line of lines(await call("/admin/events"))) {
        if (line.startsWith("event: ")) name = line.slice(7);
        if (line.startsWith("data: ")) tell(name, JSON.parse(line.slice(6)));
      }
    } catch {
      // The service is not there: it is told below.
    }
    latest.delete("now");
    tell("lost");
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
hearEvents();
