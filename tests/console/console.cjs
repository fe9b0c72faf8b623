// What a person does with the console, in a browser: look, edit a template, swap a guest, give a key.

const { chromium } = require("playwright-core");
const { spawn } = require("node:child_process");
const { mkdtempSync, writeFileSync, mkdirSync, copyFileSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const assert = require("node:assert/strict");

const LIMIT = 15_000;
const built = join(process.env.CARGO_TARGET_DIR, "debug");
const home = mkdtempSync(join(tmpdir(), "console-"));
const KEY = "a key that opens the console";

/** Starts a service, and returns its address and what ends it. */
async function serve(folder, more) {
  const at = join(home, folder);
  mkdirSync(join(at, "guests.d"), { recursive: true });
  writeFileSync(join(at, "script"), "#init\n#read\n#text Hello\n#text  there\n#done\n");
  writeFileSync(join(at, "prompt.j2"), "{% for m in messages %}\n{{ m.role }}: {{ m.content }}\n{% endfor %}");
  writeFileSync(join(at, "harness.toml"), `
listen = ["127.0.0.1:0"]
guests_dir = "guests.d"
state_dir = "state"
${more}
[backends.claude]
command = "${built}/fake-cli"
env = { FAKE_CLI_SCRIPT = "${at}/script", FAKE_CLI_PIDS = "${at}/pids", FAKE_CLI_STDIN = "${at}/stdin" }
warm = 0
[backends.echo]
profile = "generic"
adapter = "prompt-template"
command = "cat"
[guests.prompt-template]
config = { template = { file = "prompt.j2" } }
[models.claude-sonnet]
backend = "claude"
model = "sonnet"
[models.echo]
backend = "echo"
transforms = ["redact"]
`);
  const env = { HOME: at, PATH: "/usr/bin:/bin" };
  const service = spawn(join(built, "claude-harness"), ["--config", join(at, "harness.toml")], { env, stdio: ["ignore", "ignore", "pipe"] });
  const url = await new Promise((resolve, reject) => {
    let log = "";
    service.stderr.on("data", (text) => {
      log += text;
      const found = log.match(/listening on (http:\S+)/);
      if (found) resolve(found[1]);
    });
    service.on("exit", () => reject(new Error(log)));
  });
  // What it still writes to its folder is written when it has ended.
  const end = () => new Promise((resolve) => {
    service.removeAllListeners("exit").on("exit", resolve);
    service.kill();
  });
  return { url, at, end };
}

async function ask(url, model, key) {
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hi" }] });
  const response = await fetch(`${url}/v1/chat/completions`, { method: "POST", headers, body });
  await response.text();
  assert.equal(response.status, 200);
}

/** A page whose every mistake is noted. */
async function open(browser, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(LIMIT);
  page.mistakes = [];
  page.elsewhere = [];
  page.on("pageerror", (error) => page.mistakes.push(error.message));
  page.on("console", (said) => said.type() === "error" && page.mistakes.push(said.text()));
  page.on("request", (request) => request.url().startsWith(url) || page.elsewhere.push(request.url()));
  await page.goto(`${url}/console/`);
  return page;
}

function text(page, words) {
  return page.getByText(words).first().waitFor();
}

const checks = {
  async "it is small, fetches nothing from elsewhere, and is there soon"(browser, { url }) {
    const page = await open(browser, url);
    await text(page, "claude-sonnet").catch(() => {});
    const sizes = await page.evaluate(() => performance.getEntriesByType("resource").map((one) => [one.name, one.decodedBodySize]));
    const size = sizes.filter(([name]) => name.includes("/console/")).reduce((all, [, bytes]) => all + bytes, 0);
    assert.ok(size > 10_000 && size < 150_000, `${size} bytes`);
    const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    console.log(`   ${size} bytes, first content after ${Math.round(paint)} ms`);
    assert.deepEqual([page.mistakes, page.elsewhere], [[], []]);
    await page.context().close();
  },

  async "what happens is shown while it happens"(browser, { url }) {
    const page = await open(browser, url);
    await text(page, "in flight");
    await text(page, "ready");
    await page.goto(`${url}/console/#requests`);
    await text(page, "time");
    const before = await page.locator("tbody tr").count();
    await ask(url, "claude-sonnet");
    await page.waitForFunction((count) => document.querySelectorAll("tbody tr").length > count, before);
    await page.getByPlaceholder("model, key").fill("no such thing");
    await text(page, "No request is like this");
    await page.goto(`${url}/console/#usage`);
    await text(page, "Requests a day");
    await text(page, "claude-sonnet");
    assert.deepEqual(page.mistakes, []);
    await page.context().close();
  },

  async "a template is edited, and what it makes of a request is seen at once"(browser, { url }) {
    const page = await open(browser, `${url}`);
    await page.goto(`${url}/console/#playground`);
    await page.selectOption("#model", "echo");
    await page.getByText("user: Hi!").first().waitFor();
    const template = page.locator("[data-setting=template]");
    await template.fill("<<{% for m in messages %}{{ m.content }}{% endfor %}>>");
    await page.locator("#rendered").getByText("<<Hi!>>").waitFor();
    await page.getByRole("button", { name: "Run" }).click();
    await page.locator("#answer").getByText("<<Hi!>>").waitFor();
    await template.fill("{% for m in %}");
    await page.locator("#rendered").getByText("line 1").waitFor();
    await page.keyboard.press("Control+Enter");
    await page.locator("#answer").getByText("line 1").waitFor();
    await page.selectOption("#model", "claude-sonnet");
    await page.locator("#rendered").getByText("control_request").waitFor();
    // A body of another API becomes the same.
    await page.getByLabel("API").selectOption("/v1/responses");
    await page.locator("#request").fill(JSON.stringify({ model: "echo", store: false, input: "Good morning" }));
    await page.locator("#rendered").getByText("user: Good morning").waitFor();
    assert.deepEqual(page.mistakes.filter((what) => !what.includes("400")), []);
    await page.context().close();
  },

  async "a guest that is swapped is seen"(browser, { url, at }) {
    const page = await open(browser, url);
    await page.goto(`${url}/console/#guests`);
    const redact = page.locator("section", { has: page.getByRole("heading", { name: "redact" }) });
    await redact.getByText("embedded").waitFor();
    copyFileSync("guests/dist/redact.wasm", join(at, "guests.d", "redact.wasm"));
    await redact.getByText("file", { exact: true }).waitFor();
    writeFileSync(join(at, "guests.d", "redact.wasm"), "no component");
    await redact.locator(".bad").first().waitFor();
    await page.getByRole("button", { name: "Read files again" }).click();
    await text(page, "Reload: done");
    assert.deepEqual(page.mistakes, []);
    await page.context().close();
  },

  async "a wrong key is told, and the right one opens"(browser, _, keyed) {
    const page = await open(browser, keyed.url);
    await text(page, "This service has keys.");
    await page.getByLabel("Key").fill("a wrong key of some length");
    await page.getByRole("button", { name: "Open" }).click();
    await text(page, "none of this service's keys");
    await page.getByLabel("Key").fill(KEY);
    await page.keyboard.press("Enter");
    await text(page, "warm processes");
    await page.reload();
    await text(page, "warm processes");
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    await page.context().close();
  },

  async "pages of other origins, and frames, see nothing"(browser, { url }) {
    const other = url.replace("127.0.0.1", "localhost");
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(`${other}/console/`);
    const seen = await page.evaluate(async (from) => {
      try {
        return (await fetch(`${from}/admin/guests`)).status;
      } catch {
        return "refused";
      }
    }, url);
    assert.equal(seen, "refused");
    const policy = (await (await fetch(`${url}/console/`)).headers.get("content-security-policy"));
    assert.match(policy, /default-src 'none'.*frame-ancestors 'none'/);
    await context.close();
  },

  async "it can be used with the keyboard alone"(browser, { url }) {
    const page = await open(browser, url);
    await text(page, "in flight");
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await text(page, "Requests a day");
    assert.equal(await page.evaluate(() => document.activeElement.id), "page");
    await page.context().close();
  },
};

async function shots(browser, { url }, folder) {
  mkdirSync(folder, { recursive: true });
  for (const [theme, width, height] of [["light", 1280, 800], ["dark", 1280, 800], ["light", 390, 844]]) {
    const page = await open(browser, url, { colorScheme: theme, viewport: { width, height } });
    for (const name of ["now", "usage", "requests", "guests", "playground"]) {
      await page.goto(`${url}/console/#${name}`);
      await page.waitForTimeout(1200);
      if (name === "playground") {
        await page.selectOption("#model", "echo");
        await page.locator("#rendered").getByText("user: Hi!").waitFor();
        await page.getByRole("button", { name: "Run" }).click();
        await page.locator("#answer").getByText("user: Hi!").waitFor();
      }
      await page.screenshot({ path: join(folder, `${name}-${theme}-${width}.png`), fullPage: true });
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wider <= 0, `${name} is ${wider} pixels too wide for ${width}`);
    }
    await page.context().close();
  }
}

(async () => {
  const open = await serve("open", "");
  const keyed = await serve("keyed", `[keys.console]\nkey = "${KEY}"\nadmin = true\n`);
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  let failed = 0;
  await ask(open.url, "claude-sonnet");
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check(browser, open, keyed);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}\n${error.stack}`);
    }
  }
  if (process.env.SHOTS) await shots(browser, open, process.env.SHOTS);
  await browser.close();
  await Promise.all([open.end(), keyed.end()]);
  rmSync(home, { recursive: true, force: true });
  process.exit(failed ? 1 : 0);
})();
