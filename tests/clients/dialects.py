"""Clients of other APIs than chat completions, against the built service with each real command line: OpenAI's Responses
and completions, Anthropic's Messages, Ollama."""

import json

import anthropic
import ollama
import openai

import harness

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
QUESTION = "What is the weather in 'Oslo'?"
ANSWER = "The result is rain"


def responses(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    made = client.responses.create(model="m", input="Hi", instructions="Be brief.")
    assert (made.output_text, made.status) == ("Hello there", "completed"), made
    assert made.usage.total_tokens > 0
    with client.responses.stream(model="m", input="Hi") as stream:
        kinds = [event.type for event in stream]
        assert stream.get_final_response().output_text == "Hello there"
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    tools = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": False}]
    asked = [{"role": "user", "content": QUESTION}]
    called = client.responses.create(model="m", input=asked, tools=tools, store=False)
    call = next(item for item in called.output if item.type == "function_call")
    assert json.loads(call.arguments)["city"], call
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    history = asked + [item.model_dump(exclude_none=True) for item in called.output] + [result]
    told = client.responses.create(model="m", input=history, tools=tools)
    assert told.output_text == ANSWER, told
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False}
    text = {"format": {"type": "json_schema", "name": "person", "schema": schema, "strict": True}}
    parsed = client.responses.create(model="m", input="Name somebody", text=text)
    assert "name" in json.loads(parsed.output_text), parsed
    for wrong, param in [({"previous_response_id": "resp_x"}, "previous_response_id"), ({"store": True}, "store")]:
        try:
            client.responses.create(model="m", input="Hi", **wrong)
            raise AssertionError(f"{param} was accepted")
        except openai.BadRequestError as error:
            assert error.param == param, error


def completions(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    made = client.completions.create(model="m", prompt="Say")
    assert made.choices[0].text == "Hello there", made
    stream = client.completions.create(model="m", prompt="Say", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == "Hello there"


def messages(url):
    client = anthropic.Anthropic(base_url=url, api_key="any", max_retries=0)
    hi = [{"role": "user", "content": "Hi"}]
    made = client.messages.create(model="m", max_tokens=100, messages=hi)
    assert made.content[0].text == "Hello there" and made.stop_reason == "end_turn", made
    with client.messages.stream(model="m", max_tokens=100, messages=hi) as stream:
        assert "".join(stream.text_stream) == "Hello there"
        assert stream.get_final_message().usage.output_tokens > 0
    tools = [{"name": "get_weather", "description": "Looks up", "input_schema": WEATHER}]
    asked = [{"role": "user", "content": QUESTION}]
    called = client.messages.create(model="m", max_tokens=100, messages=asked, tools=tools)
    assert called.stop_reason == "tool_use", called
    call = called.content[-1]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history = asked + [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in called.content]},
        {"role": "user", "content": [result]},
    ]
    told = client.messages.create(model="m", max_tokens=100, messages=history, tools=tools)
    assert told.content[0].text == ANSWER, told
    assert client.messages.count_tokens(model="m", messages=hi).input_tokens > 0
    for wrong, kind in [("nobody", anthropic.NotFoundError), ("", anthropic.BadRequestError)]:
        try:
            client.messages.create(model=wrong, max_tokens=100, messages=hi)
            raise AssertionError(f"the model {wrong!r} was accepted")
        except kind:
            pass


def ollamas(url):
    client = ollama.Client(host=url)
    hi = [{"role": "user", "content": "Hi"}]
    made = client.chat(model="m", messages=hi)
    assert made.message.content == "Hello there" and made.done_reason == "stop", made
    pieces = client.chat(model="m:latest", messages=hi, stream=True)
    assert "".join(piece.message.content for piece in pieces) == "Hello there"
    assert client.generate(model="m", prompt="Hi").response == "Hello there"
    tools = [{"type": "function", "function": {"name": "get_weather", "description": "Looks up", "parameters": WEATHER}}]
    asked = [{"role": "user", "content": QUESTION}]
    called = client.chat(model="m", messages=asked, tools=tools)
    call = called.message.tool_calls[0].function
    assert call.name == "get_weather" and call.arguments["city"], called
    history = asked + [called.message, {"role": "tool", "tool_name": "get_weather", "content": "rain"}]
    assert client.chat(model="m", messages=history, tools=tools).message.content == ANSWER
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"], "additionalProperties": False}
    assert "name" in json.loads(client.chat(model="m", messages=hi, format=schema).message.content)
    assert any(model.model == "m:latest" for model in client.list().models)
    assert client.show("m").capabilities
    try:
        client.chat(model="nobody", messages=hi)
        raise AssertionError("an unknown model was accepted")
    except ollama.ResponseError as error:
        assert error.status_code == 404, error


for version in harness.VERSIONS:
    if harness.command_line(version) is None:
        print(f"left out: Claude Code {version} is not there")
        continue
    with harness.real(version) as service:
        url = getattr(service, "url", service)
        for client in [responses, completions, messages, ollamas]:
            client(url)
            print(f"Claude Code {version}: {client.__name__}")
