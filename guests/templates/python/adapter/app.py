"""What this guest is, and how it is configured. Its sessions are in `adapter.py`.

The contract is in wit/1.0.0/adapter.wit. `.venv/bin/componentize-py -d wit/1.0.0 -w adapter-guest bindings .`
writes its types for your editor.
"""

import json

from adapter import settings
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import guest


class Guest(exports.Guest):
    def describe(self) -> guest.Description:
        properties = {"cue": {"type": "string"}}
        schema = {"type": "object", "additionalProperties": False, "properties": properties}
        return guest.Description(
            name="NAME",
            version="0.1.0",
            summary="writes a conversation line by line",
            config_schema=json.dumps(schema),
            honours=[],
            extra=None,
        )

    def configure(self, config: str) -> None:
        """Takes `config`, which is in `[guests.NAME]` or in the backend's `adapter`."""
        settings.update(json.loads(config))
        problems = []
        for key, value in settings.items():
            if key != "cue":
                problems.append(guest.Problem(key, "there is no such key: use cue"))
            elif not isinstance(value, str):
                problems.append(guest.Problem(key, "this is not a string"))
        if problems:
            raise Err(problems)
