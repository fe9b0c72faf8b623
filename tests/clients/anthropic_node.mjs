// The official Anthropic package for Node against the service and each real command line.

import assert from "node:assert/strict";

import { load, run, versionOf } from "./harness.mjs";

const { default: Anthropic } = await load("@anthropic-ai/sdk");

const client = (url) => new Anthropic({ baseURL: url.replace(/\/v1$/, ""), apiKey: "any", maxRetries: 0 });
const asked = (content, more) => ({ model: "m", max_tokens: 100, messages: [{ role: "user", content }], ...more });

const weather = {
  name: "get_weather",
  description: "Looks up",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

async function answers(url) {
  const made = await client(url).messages.create(asked("Say hi", { system: "Be brief." }));
  assert.deepEqual([made.content[0].text, made.stop_reason], ["Hello there", "end_turn"]);
  assert.ok(made.usage.output_tokens > 0);
}

async function streamHelper(url) {
  const stream = client(url).messages.stream(asked("Say hi"));
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const made = await stream.finalMessage();
  assert.deepEqual([text, made.content[0].text], ["Hello there", "Hello there"]);
}

async function tools(url) {
  const question = "What is the weather in 'Rome'?";
  const called = await client(url).messages.create(asked(question, { tools: [weather] }));
  assert.equal(called.stop_reason, "tool_use");
  const call = called.content.find((block) => block.type === "tool_use");
  assert.deepEqual(call.input, { city: "Rome" });
  const messages = [
    { role: "user", content: question },
    { role: "assistant", content: called.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "rain" }] },
  ];
  const told = await client(url).messages.create(asked("", { tools: [weather], messages }));
  assert.equal(told.content[0].text, "The result is rain");
}

async function structure(url) {
  const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
  const format = { type: "json_schema", schema };
  const made = await client(url).messages.create(asked("in 'Rome'", { output_config: { format } }));
  assert.deepEqual(JSON.parse(made.content[0].text), { city: "Rome" });
}

async function counts(url) {
  const { max_tokens, ...body } = asked("Say hi");
  assert.ok((await client(url).messages.countTokens(body)).input_tokens > 0);
}

async function errors(url) {
  const cases = [
    [asked("x", { model: "gone" }), Anthropic.NotFoundError],
    [asked("x", { messages: [] }), Anthropic.BadRequestError],
    [asked("scenario:429"), Anthropic.RateLimitError],
    [asked("scenario:401"), Anthropic.AuthenticationError],
  ];
  for (const [body, kind] of cases) {
    for (const stream of [false, true]) {
      await assert.rejects(client(url).messages.create({ ...body, stream }), kind);
    }
  }
  const broken = client(url).messages.stream(asked("scenario:mid-stream-error"));
  await assert.rejects(broken.finalMessage(), Anthropic.APIError);
}

await run(`@anthropic-ai/sdk ${versionOf("@anthropic-ai/sdk")}`, [answers, streamHelper, tools, structure, counts, errors]);
