// The Vercel AI SDK, with its provider for OpenAI-compatible services, which speaks chat completions, and with its
// provider for OpenAI, which speaks Responses, against the service and each real command line.

import assert from "node:assert/strict";

import { all, load, run, versionOf } from "./harness.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const { Output, generateText, isStepCount, stepCountIs, streamText, tool } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { z } = await load("zod");

const chat = (url) =>
  createOpenAICompatible({ name: "harness", baseURL: url, apiKey: "any", supportsStructuredOutputs: true, includeUsage: true })("m");
const responses = (url) => createOpenAI({ baseURL: url, apiKey: "any" })("m");
let model = chat;
const steps = (isStepCount ?? stepCountIs)(4);
const options = (url) => ({ model: model(url), maxRetries: 0 });
const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
});

async function text(url) {
  const answer = await generateText({ ...options(url), prompt: "Say hi" });
  assert.equal(answer.text, "Hello there");
  assert.equal(answer.finishReason, "stop");
  assert.equal(answer.usage.inputTokens, 18);
  const stream = streamText({ ...options(url), prompt: "Say hi" });
  assert.equal((await all(stream.textStream)).join(""), "Hello there");
  assert.equal((await stream.usage).inputTokens, 18);
}

async function reasoning(url) {
  const answer = await generateText({ ...options(url), prompt: "scenario:thinking" });
  assert.equal(answer.reasoningText, "Let me think.");
  assert.equal(answer.text, "Done thinking.");
}

async function tools(url) {
  const request = { ...options(url), prompt: "What is the weather in 'Rome'?", tools: { get_weather: weather }, stopWhen: steps };
  const answer = await generateText(request);
  assert.equal(answer.text, "The result is sunny in Rome");
  assert.equal(answer.steps.length, 2);
  const stream = streamText(request);
  assert.equal((await all(stream.textStream)).join(""), "The result is sunny in Rome");
  const forced = await generateText({ ...options(url), prompt: "Hello", tools: { get_weather: weather }, toolChoice: "required" });
  assert.equal(forced.toolCalls[0].toolName, "get_weather");
}

async function structure(url) {
  const schema = z.object({ city: z.string(), days: z.number().int(), when: z.string().date().nullable() });
  const request = { ...options(url), prompt: "in 'Rome' for 3", output: Output.object({ schema }) };
  const answer = await generateText(request);
  assert.equal(answer.output.city, "Rome");
  const stream = streamText(request);
  const partial = await all(stream.partialOutputStream);
  assert.ok(partial.length > 1 && (await stream.output).days === 3);
}

async function pictures(url) {
  const content = [
    { type: "text", text: "Say hi" },
    { type: "image", image: Buffer.from(png, "base64") },
  ];
  const answer = await generateText({ ...options(url), messages: [{ role: "user", content }] });
  assert.equal(answer.text, "Hello there");
}

async function errors(url) {
  for (const [scenario, status] of [
    ["429", 429],
    ["401", 401],
    ["529", 503],
  ]) {
    await assert.rejects(
      generateText({ ...options(url), prompt: `scenario:${scenario}` }),
      (error) => error.statusCode === status,
    );
  }
  const stream = streamText({ ...options(url), prompt: "scenario:mid-stream-error", onError: () => {} });
  const parts = await all(stream.fullStream);
  assert.ok(parts.some((part) => part.type === "error"), "a broken stream looks complete");
}

const title = `ai ${versionOf("ai")} with @ai-sdk/openai-compatible ${versionOf("@ai-sdk/openai-compatible")}`;
await run(title, [text, reasoning, tools, structure, pictures, errors]);
model = responses;
await run(`the same with @ai-sdk/openai ${versionOf("@ai-sdk/openai")}`, [text, tools, structure, pictures, errors]);
