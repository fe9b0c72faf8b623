"""A transform: it gives the model an instruction, and signs each answer.

The contract is in wit/1.0.0/transform.wit. `.venv/bin/componentize-py -d wit/1.0.0 -w transform-guest bindings .`
writes its types for your editor.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import guest, transform
from wit_world.imports import types

KEYS = ("instruction", "signature")

settings: dict[str, str] = {}


class Guest(exports.Guest):
    def describe(self) -> guest.Description:
        properties = {key: {"type": "string"} for key in KEYS}
        schema = {"type": "object", "additionalProperties": False, "properties": properties}
        return guest.Description(
            name="NAME",
            version="0.1.0",
            summary="instructs and signs",
            config_schema=json.dumps(schema),
            honours=[],
            extra=None,
        )

    def configure(self, config: str) -> None:
        """Takes `config`, which is in `[guests.NAME]` or where a model uses this guest."""
        global settings
        settings = json.loads(config)
        problems = []
        for key, value in settings.items():
            if key not in KEYS:
                message = f"there is no such key: use {' or '.join(KEYS)}"
                problems.append(guest.Problem(key, message))
            elif not isinstance(value, str):
                problems.append(guest.Problem(key, "this is not a string"))
        if problems:
            raise Err(problems)


class Filter(transform.Filter):
    """Watches one answer."""

    def take(self, deltas: list[types.Delta]) -> transform.Step:
        """The next pieces of the answer pass as they come."""
        return transform.Step_Forward(deltas)

    def finish(self, outcome: types.Outcome) -> transform.Ending:
        signature = types.Delta_Content(f"\n{settings['signature']}")
        return transform.Ending([signature], outcome.finish_reason, None)


class Transform(exports.Transform):
    def open(self, context: types.Context, request: types.Request) -> transform.Opened:
        decision: transform.Decision = transform.Decision_Pass()
        if instruction := settings.get("instruction"):
            content = types.Content_Text(instruction)
            message = types.Message(types.Role.SYSTEM, None, content, [], None, None)
            request.messages.insert(0, message)
            decision = transform.Decision_Rewrite(request)
        return transform.Opened(decision, Filter() if "signature" in settings else None)
