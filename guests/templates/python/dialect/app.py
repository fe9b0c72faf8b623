"""A dialect: an API of one route, `POST /NAME`, which takes `{"prompt": "…"}` and answers with plain text.

The contract is in wit/1.0.0/dialect.wit. `.venv/bin/componentize-py -d wit/1.0.0 -w dialect-guest bindings .`
writes its types for your editor.
"""

import json
from typing import Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import dialect, guest
from wit_world.imports import types

settings: dict[str, str] = {"model": "claude-haiku"}


class Guest(exports.Guest):
    def describe(self) -> guest.Description:
        properties = {"model": {"type": "string"}}
        schema = {"type": "object", "additionalProperties": False, "properties": properties}
        return guest.Description(
            name="NAME",
            version="0.1.0",
            summary="a prompt in, plain text out",
            config_schema=json.dumps(schema),
            honours=[],
            extra=None,
        )

    def configure(self, config: str) -> None:
        """Takes `config`, which is in `[guests.NAME]`."""
        settings.update(json.loads(config))
        problems = []
        for key, value in settings.items():
            if key != "model":
                problems.append(guest.Problem(key, "there is no such key: use model"))
            elif not isinstance(value, str):
                problems.append(guest.Problem(key, "this is not a string"))
        if problems:
            raise Err(problems)


class Call(dialect.Call):
    """One call on its way."""

    def begin(self) -> Optional[dialect.HttpHead]:
        return dialect.HttpHead(200, "text/plain", [])

    def take(self, choice: int, deltas: list[types.Delta]) -> str:
        return "".join(d.value for d in deltas if isinstance(d, types.Delta_Content))

    def end_choice(self, choice: int, outcome: types.Outcome) -> str:
        return ""

    def finish(self) -> str:
        return "\n"

    def fail(self, failure: dialect.Failure) -> str:
        return f"\n{failure.message}\n"

    def keep_alive(self) -> str:
        return ""

    def list_models(self, models: list[dialect.OfferedModel]) -> dialect.HttpResponse:
        return text(400, "this API has no list of models")


def text(status: int, body: str) -> dialect.HttpResponse:
    return dialect.HttpResponse(status, [dialect.Header("content-type", "text/plain")], f"{body}\n")


def refused(message: str) -> Err:
    kind = types.ErrorKind.INVALID_REQUEST
    return Err(types.ApiError(kind, message, "prompt", None, None))


class Dialect(exports.Dialect):
    def serve(self) -> dialect.Service:
        return dialect.Service([dialect.Route("POST", "/NAME")], [], [], None)

    def open(self, context: types.Context, http: dialect.HttpRequest) -> dialect.Opened:
        try:
            prompt = json.loads(http.body)["prompt"]
        except (ValueError, KeyError, TypeError) as error:
            raise refused(str(error))
        if not isinstance(prompt, str):
            raise refused("`prompt` is not a string")
        content = types.Content_Text(prompt)
        message = types.Message(types.Role.USER, None, content, [], None, None)
        request = types.Request(
            messages=[message],
            tools=[],
            tool_choice=None,
            parallel_tool_calls=None,
            output_format=types.OutputFormat_Text(),
            stream=True,
            max_tokens=None,
            reasoning_effort=None,
            sampling=types.Sampling(None, None, None, None, None),
            stop=[],
            extra=None,
        )
        completion = dialect.Completion(settings["model"], 1, request, Call())
        return dialect.Opened_Completion(completion)

    def render_error(self, failure: dialect.Failure) -> dialect.HttpResponse:
        return text(failure.status, failure.message)
