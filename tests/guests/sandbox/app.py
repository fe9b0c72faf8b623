"""A transform that tries what a guest must not do: each request names it. For the tests of the sandbox."""

import json
import os
import sys
import time

from wit_world import exports
from wit_world.exports import guest, transform
from wit_world.imports import types


class Guest(exports.Guest):
    def describe(self) -> guest.Description:
        print("it describes itself")
        return guest.Description("sandbox", "1.0.0", "tries what it must not do", "{}", [], None)

    def configure(self, config: str) -> None:
        pass


def look() -> str:
    """What there is of the world outside."""
    world = {
        "time": time.time(),
        "monotonic": time.monotonic(),
        "random": os.urandom(4).hex(),
        "environment": dict(os.environ),
        "arguments": sys.argv,
        "input": sys.stdin.read(),
        "file": os.path.exists("/etc/hostname"),
    }
    return json.dumps(world)


class Transform(exports.Transform):
    def open(self, context: types.Context, request: types.Request) -> transform.Opened:
        match request.messages[-1].content.value:
            case "sleep":
                time.sleep(1)
            case "exit":
                sys.exit(3)
            case "spin":
                while True:
                    pass
            case "memory":
                print(len([bytearray(1 << 20) for _ in range(2000)]))
        outcome = types.Outcome(types.FinishReason.STOP, None, None, None)
        reply = transform.Reply([types.Delta_Content(look())], outcome)
        return transform.Opened(transform.Decision_Answer(reply), None)
