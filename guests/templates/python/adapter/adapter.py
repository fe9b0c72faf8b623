"""An adapter for a program that reads a conversation from its standard input, and prints the answer.

componentize-py looks for the class `Session` in the module `adapter`.
"""

from typing import Optional, Self

from componentize_py_types import Err
from wit_world.exports import adapter
from wit_world.imports import types

# What `config` says, over these defaults.
settings: dict[str, str] = {"cue": "assistant:"}


def text(content: Optional[types.Content]) -> str:
    """The text of a message."""
    match content:
        case None:
            return ""
        case types.Content_Text(text):
            return text
    texts = []
    for part in content.value:
        if not isinstance(part, types.Part_Text):
            kind = types.ErrorKind.UNSUPPORTED_PARAMETER
            raise Err(types.ApiError(kind, "this model takes text only", None, None, None))
        texts.append(part.value.text)
    return "".join(texts)


class Session(adapter.Session):
    """One request on one process."""

    prompt: str

    @classmethod
    def open(cls, context: types.Context, request: types.Request) -> Self:
        session = cls()
        lines = [f"{m.role.name.lower()}: {text(m.content)}\n" for m in request.messages]
        session.prompt = "".join(lines) + settings["cue"] + "\n"
        return session

    def launch_options(self) -> list[adapter.LaunchOption]:
        return []

    def start(self) -> list[adapter.Effect]:
        return [adapter.Effect_Write(self.prompt), adapter.Effect_CloseInput()]

    def output(self, lines: list[str]) -> list[adapter.Effect]:
        """The profile `generic` hands on what the program prints as it comes."""
        return [adapter.Effect_Emit(types.Delta_Content(piece)) for piece in lines]

    def exit(self, status: Optional[int], stderr_tail: str) -> list[adapter.Effect]:
        if status == 0:
            outcome = types.Outcome(types.FinishReason.STOP, None, None, None)
            return [adapter.Effect_Finish(outcome)]
        kind = types.ErrorKind.BACKEND_FAILED
        return [adapter.Effect_Fail(types.ApiError(kind, "the program failed", None, None, None))]
