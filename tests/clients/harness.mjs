// A service under test for clients in Node: the real program with a private home, in front of a real
// command line and the fake Messages API. NODE_PACKAGES is the folder that the packages are installed in.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";

const programs = resolve(process.env.HARNESS_PROGRAMS);
const require = createRequire(join(resolve(process.env.NODE_PACKAGES), "/"));
const versions = ["2.1.197", "2.1.330"];

/** The module of an installed package. */
export const load = (name) => import(require.resolve(name));

/** The version of an installed package. */
export const versionOf = (name) =>
  JSON.parse(readFileSync(join(process.env.NODE_PACKAGES, "node_modules", name, "package.json"))).version;

/** Everything that an asynchronous iterator gives. */
export async function all(iterator) {
  const items = [];
  for await (const item of iterator) items.push(item);
  return items;
}

/** Starts a program that says on a line where it listens. */
async function start(command, args, env, stream, pattern) {
  const stdio = ["ignore", stream === "stdout" ? "pipe" : "ignore", stream === "stderr" ? "pipe" : "ignore"];
  const child = spawn(command, args, { env, stdio });
  for await (const line of createInterface({ input: child[stream] })) {
    const found = line.match(pattern);
    if (found) {
      child[stream].resume();
      const ended = new Promise((done) => child.once("exit", done));
      // Waits, because a service leaves no process behind, and none that still writes.
      return { url: found[1], stop: () => (child.kill("SIGTERM"), ended) };
    }
  }
  throw new Error(`${command} ended before it listened`);
}

/** Runs `check` with the address of a service for each real command line that is there. */
export async function withEach(check) {
  for (const version of versions) {
    const cli = join(programs, "..", "cli", version, "package", "claude");
    if (!existsSync(cli)) continue;
    const home = mkdtempSync(join(tmpdir(), "harness-"));
    const api = await start(join(programs, "fake-api"), [], {}, "stdout", /(http:\/\/\S+)/);
    const config = join(home, "harness.toml");
    writeFileSync(
      config,
      `[backends.claude]
       command = "${cli}"
       env = { ANTHROPIC_BASE_URL = "${api.url}", HTTPS_PROXY = "http://127.0.0.1:9", NO_PROXY = "127.0.0.1", CLAUDE_CODE_OAUTH_TOKEN = "any", CLAUDE_CONFIG_DIR = "${home}/claude" }
       [models.m]
       backend = "claude"
       model = "sonnet"`,
    );
    const env = { HOME: home, PATH: "/usr/bin:/bin", CLAUDE_HARNESS_LOG: "off" };
    const args = ["serve", "--config", config, "--listen", "127.0.0.1:0"];
    const service = await start(join(programs, "claude-harness"), args, env, "stderr", /listening on (http:\/\/\S+)/);
    try {
      await check(`${service.url}/v1`);
    } finally {
      await service.stop();
      await api.stop();
      rmSync(home, { recursive: true, force: true });
    }
  }
}

/** Runs the checks one by one and prints what came of it. */
export async function run(title, checks) {
  let passed = 0;
  await withEach(async (url) => {
    for (const check of checks) {
      try {
        await check(url);
      } catch (error) {
        console.error(`${title}: ${check.name} failed`);
        throw error;
      }
      passed += 1;
    }
  });
  console.log(`${title}: ${passed} passed, 0 failed`);
}
