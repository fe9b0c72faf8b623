"""The official OpenAI package for Python against the service: against the demonstration, and against
each real command line that `tests/run` fetched. HARNESS_PROGRAMS is the folder of the built programs.
"""

import os
import tempfile

import openai
import pydantic

from harness import VERSIONS, command_line, real, service


def user(text):
    return [{"role": "user", "content": text}]


def answers(client, model, text):
    messages = user("Say hi")
    whole = client.chat.completions.create(model=model, messages=messages)
    assert whole.choices[0].message.content == text, whole
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0
    options = {"include_usage": True}
    pieces = list(client.chat.completions.create(model=model, messages=messages, stream=True, stream_options=options))
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert streamed == text, streamed
    assert pieces[-1].usage == whole.usage, (pieces[-1].usage, whole.usage)
    with client.chat.completions.stream(model=model, messages=messages) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == text
    assert model in [listed.id for listed in client.models.list()]
    assert client.models.retrieve(model).id == model


def raises(kind, code, call):
    try:
        call()
    except kind as error:
        assert error.code == code, error
        return
    raise AssertionError(f"no {kind.__name__}")


def refuses(client, model):
    create = client.chat.completions.create
    raises(openai.NotFoundError, "model_not_found", lambda: create(model="gone", messages=user("x")))
    raises(openai.BadRequestError, None, lambda: create(model=model, messages=[]))
    raises(openai.BadRequestError, None, lambda: create(model=model, messages=user("x"), n=100))
    raises(openai.BadRequestError, "unsupported_parameter", lambda: create(model=model, messages=user("x"), logprobs=True))
    raises(openai.NotFoundError, "model_not_found", lambda: client.models.retrieve("gone"))


def fails(client, model):
    for stream in (False, True):
        for scenario, kind, code in [
            ("429", openai.RateLimitError, "rate_limit_exceeded"),
            ("401", openai.AuthenticationError, "not_logged_in"),
            ("403", openai.PermissionDeniedError, "permission_denied"),
            ("too-long", openai.BadRequestError, "context_length_exceeded"),
            ("529", openai.InternalServerError, "overloaded"),
        ]:
            messages = user(f"scenario:{scenario}")
            raises(kind, code, lambda: client.chat.completions.create(model=model, messages=messages, stream=stream))
    broken = client.chat.completions.create(model=model, messages=user("scenario:mid-stream-error"), stream=True)
    raises(openai.APIError, "backend_error", lambda: list(broken))


class Place(pydantic.BaseModel):
    city: str
    days: int
    tags: list[str] | None = None


def structures(client, model):
    parsed = client.chat.completions.parse(model=model, messages=user("in 'Rome' for 3"), response_format=Place)
    assert parsed.choices[0].message.parsed == Place(city="Rome", days=3, tags=["some tags"]), parsed
    with client.chat.completions.stream(model=model, messages=user("in 'Rome' for 3"), response_format=Place) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.parsed.city == "Rome"
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    json = client.chat.completions.create(
        model=model, messages=user("keys 'a' and 'b'"), response_format={"type": "json_object"}
    )
    assert json.choices[0].message.content == '{"a":"x","b":"x"}', json


def get_weather(city):
    return f"sunny in {city}"


class GetWeather(pydantic.BaseModel):
    """The weather of a city."""

    city: str


def calls(client, model):
    tools = [openai.pydantic_function_tool(GetWeather, name="get_weather")]
    messages = user("What is the weather in 'Rome'?")
    parsed = client.chat.completions.parse(model=model, messages=messages, tools=tools)
    call = parsed.choices[0].message.tool_calls[0]
    assert call.function.parsed_arguments == GetWeather(city="Rome"), call
    with client.chat.completions.stream(model=model, messages=messages, tools=tools) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert done[0].parsed_arguments == GetWeather(city="Rome"), done
    assert final.choices[0].finish_reason == "tool_calls"
    messages += [
        parsed.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": get_weather(call.function.parsed_arguments.city)},
    ]
    answer = client.chat.completions.create(model=model, messages=messages, tools=tools)
    assert answer.choices[0].message.content == "The result is sunny in Rome", answer
    forced = client.chat.completions.create(model=model, messages=user("Hello"), tools=tools, tool_choice="required")
    assert forced.choices[0].message.tool_calls, forced


def the_rest(client, model):
    create = client.chat.completions.create
    several = create(model=model, messages=user("Say hi"), n=2)
    assert [choice.index for choice in several.choices] == [0, 1], several
    short = create(model=model, messages=user("scenario:words"), max_completion_tokens=3)
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3), short
    stopped = create(model=model, messages=user("scenario:words"), stop="w2")
    assert stopped.choices[0].message.content == "w0 w1 ", stopped
    thought = create(model=model, messages=user("scenario:thinking"), reasoning_effort="high")
    assert thought.choices[0].message.reasoning_content == "Let me think.", thought
    bad = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    raises(openai.BadRequestError, None, lambda: create(model=model, messages=[{"role": "user", "content": [bad]}]))


def main():
    passed = 0
    with tempfile.TemporaryDirectory() as home, service(home, "") as demo:
        client = openai.OpenAI(base_url=f"{demo.url}/v1", api_key="any", max_retries=0)
        answers(client, "demo", "You said: Say hi")
        refuses(client, "demo")
        passed += 2
    for version in filter(command_line, VERSIONS):
        with real(version) as running:
            client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)
            answers(client, "m", "Hello there")
            for check in (refuses, fails, structures, calls, the_rest):
                check(client, "m")
            passed += 6
    print(f"openai {openai.__version__}: {passed} passed, 0 failed")


if __name__ == "__main__":
    os.environ.pop("OPENAI_API_KEY", None)
    main()
