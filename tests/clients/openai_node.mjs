// The official OpenAI package for Node against the service and each real command line.

import assert from "node:assert/strict";

import { load, run, versionOf } from "./harness.mjs";

const { default: OpenAI } = await load("openai");
const { zodFunction, zodResponseFormat, zodTextFormat } = await load("openai/helpers/zod");
const { z } = await load("zod");

const client = (url) => new OpenAI({ baseURL: url, apiKey: "any", maxRetries: 0 });
const user = (content) => [{ role: "user", content }];
const Place = z.object({ city: z.string(), days: z.number().int() });

const tool = {
  type: "function",
  function: {
    name: "get_weather",
    parse: JSON.parse,
    function: ({ city }) => `sunny in ${city}`,
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

async function answers(url) {
  const create = (more) => client(url).chat.completions.create({ model: "m", messages: user("Say hi"), ...more });
  const whole = await create();
  assert.equal(whole.choices[0].message.content, "Hello there");
  let text = "";
  let usage;
  for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "Hello there");
  assert.deepEqual(usage, whole.usage);
}

async function streamHelper(url) {
  const stream = client(url).chat.completions.stream({ model: "m", messages: user("Say hi") });
  const pieces = [];
  stream.on("content", (piece) => pieces.push(piece));
  assert.equal(await stream.finalContent(), "Hello there");
  assert.equal(pieces.join(""), "Hello there");
}

async function parse(url) {
  const parsed = await client(url).chat.completions.parse({
    model: "m",
    messages: user("in 'Rome' for 3"),
    response_format: zodResponseFormat(Place, "place"),
  });
  assert.deepEqual(parsed.choices[0].message.parsed, { city: "Rome", days: 3 });
  const called = await client(url).chat.completions.parse({
    model: "m",
    messages: user("What is the weather in 'Rome'?"),
    tools: [zodFunction({ name: "get_weather", parameters: z.object({ city: z.string() }) })],
  });
  assert.deepEqual(called.choices[0].message.tool_calls[0].function.parsed_arguments, { city: "Rome" });
}

async function toolRunner(url) {
  for (const stream of [false, true]) {
    const runner = client(url).chat.completions.runTools({
      model: "m",
      messages: user("What is the weather in 'Rome'?"),
      tools: [tool],
      stream,
    });
    assert.equal(await runner.finalContent(), "The result is sunny in Rome");
    assert.equal((await runner.finalFunctionToolCall()).name, "get_weather");
  }
}

async function errors(url) {
  const create = (more) => client(url).chat.completions.create({ model: "m", messages: user("x"), ...more });
  const cases = [
    [{ model: "gone" }, OpenAI.NotFoundError, "model_not_found"],
    [{ messages: [] }, OpenAI.BadRequestError, null],
    [{ logprobs: true }, OpenAI.BadRequestError, "unsupported_parameter"],
    [{ messages: user("scenario:429") }, OpenAI.RateLimitError, "rate_limit_exceeded"],
    [{ messages: user("scenario:401") }, OpenAI.AuthenticationError, "not_logged_in"],
    [{ messages: user("scenario:too-long") }, OpenAI.BadRequestError, "context_length_exceeded"],
    [{ messages: user("scenario:529") }, OpenAI.InternalServerError, "overloaded"],
  ];
  for (const [more, kind, code] of cases) {
    for (const stream of [false, true]) {
      await assert.rejects(create({ ...more, stream }), (error) => error instanceof kind && error.code === code);
    }
  }
  const broken = await create({ messages: user("scenario:mid-stream-error"), stream: true });
  await assert.rejects(async () => {
    for await (const _ of broken);
  }, OpenAI.APIError);
}

async function responses(url) {
  const { responses } = client(url);
  const made = await responses.create({ model: "m", input: "Hi", instructions: "Be brief." });
  assert.deepEqual([made.output_text, made.status], ["Hello there", "completed"]);
  const stream = responses.stream({ model: "m", input: "Hi" });
  let text = "";
  stream.on("response.output_text.delta", (event) => (text += event.delta));
  assert.equal((await stream.finalResponse()).output_text, text);
  const format = zodTextFormat(Place, "place");
  const parsed = await responses.parse({ model: "m", input: "in 'Rome' for 3", text: { format } });
  assert.deepEqual(parsed.output_parsed, { city: "Rome", days: 3 });
  const tools = [{ type: "function", name: "get_weather", parameters: tool.function.parameters, strict: false }];
  const asked = user("What is the weather in 'Rome'?");
  const called = await responses.create({ model: "m", input: asked, tools });
  const call = called.output.find((item) => item.type === "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: "rain" };
  const told = await responses.create({ model: "m", input: [...asked, ...called.output, result], tools });
  assert.equal(told.output_text, "The result is rain");
}

await run(`openai ${versionOf("openai")} for Node`, [answers, streamHelper, parse, toolRunner, errors, responses]);
