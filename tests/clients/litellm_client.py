"""LiteLLM's client against the service and each real command line that `tests/run` fetched."""

import asyncio
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would fetch one from the internet

import litellm

from harness import VERSIONS, command_line, real

litellm.suppress_debug_info = True
litellm.telemetry = False

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def user(text):
    return [{"role": "user", "content": text}]


def asks(options):
    """Both as `openai/…` and as `litellm_proxy/…`."""
    for provider in ("openai", "litellm_proxy"):
        yield lambda text, **more: litellm.completion(
            **{"model": f"{provider}/m", "messages": user(text)} | options | more
        )


def text_and_usage(ask):
    answer = ask("Say hi")
    assert answer.choices[0].message.content == "Hello there", answer
    assert answer.usage.total_tokens == 18 + 7, answer.usage
    chunks = list(ask("Say hi", stream=True, stream_options={"include_usage": True}))
    rebuilt = litellm.stream_chunk_builder(chunks, messages=user("Say hi"))
    assert rebuilt.choices[0].message.content == "Hello there", rebuilt
    assert rebuilt.usage.prompt_tokens == 18, rebuilt.usage


def functions(ask):
    messages = user("What is the weather in 'Rome'?")
    answer = ask("", messages=messages, tools=[TOOL])
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city":"Rome"}'), call
    chunks = list(ask("", messages=messages, tools=[TOOL], stream=True))
    rebuilt = litellm.stream_chunk_builder(chunks, messages=messages)
    assert rebuilt.choices[0].message.tool_calls[0].function.arguments == '{"city":"Rome"}', rebuilt
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sun"}]
    answer = ask("", messages=messages, tools=[TOOL])
    assert answer.choices[0].message.content == "The result is sun", answer


def forms(ask):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": schema}}
    assert ask("in 'Rome'", response_format=wanted).choices[0].message.content == '{"city":"Rome"}'
    thought = ask("scenario:thinking").choices[0].message
    assert thought.reasoning_content == "Let me think.", thought


def failures(ask):
    for scenario, kind in [
        ("429", litellm.RateLimitError),
        ("401", litellm.AuthenticationError),
        ("too-long", litellm.ContextWindowExceededError),
        ("529", litellm.ServiceUnavailableError),
    ]:
        for stream in (False, True):
            try:
                list(ask(f"scenario:{scenario}", stream=stream, num_retries=0))
            except kind:
                continue
            raise AssertionError(f"no {kind.__name__}")
    try:
        list(ask("scenario:mid-stream-error", stream=True))
    except litellm.exceptions.APIError:
        return
    except litellm.exceptions.MidStreamFallbackError:
        return
    raise AssertionError("a broken stream looks complete")


async def asynchronous(options):
    answer = await litellm.acompletion(model="openai/m", messages=user("Say hi"), **options)
    assert answer.choices[0].message.content == "Hello there", answer


def main():
    passed = 0
    for version in filter(command_line, VERSIONS):
        with real(version) as running:
            options = {"api_base": f"{running.url}/v1", "api_key": "any", "max_retries": 0}
            for ask in asks(options):
                for check in (text_and_usage, functions, forms, failures):
                    check(ask)
                    passed += 1
            asyncio.run(asynchronous(options))
            passed += 1
    print(f"LiteLLM: {passed} passed, 0 failed")


if __name__ == "__main__":
    main()
