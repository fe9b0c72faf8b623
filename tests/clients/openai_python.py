"""The official OpenAI package for Python against the service.

Usage: openai_python.py FOLDER, the folder of the built programs. Runs every check against the
demonstration and against each real command line that `tests/run` fetched.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import openai

PROGRAMS = pathlib.Path(sys.argv[1]).resolve()
VERSIONS = ["2.1.197", "2.1.330"]


class Running:
    """A program that says on a line where it listens."""

    def __init__(self, command, env, stream, pattern):
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: subprocess.PIPE}
        self.process = subprocess.Popen(command, env=env, text=True, **pipes)
        self.pipe = getattr(self.process, stream)
        for line in self.pipe:
            if found := re.search(pattern, line):
                self.url = found.group(1)
                return
        raise SystemExit(f"{command[0]} ended before it listened")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def service(home, config):
    file = pathlib.Path(home, "harness.toml")
    file.write_text(config)
    command = [PROGRAMS / "claude-harness", "serve", "--config", file, "--listen", "127.0.0.1:0"]
    env = {"HOME": home, "PATH": "/usr/bin:/bin", "CLAUDE_HARNESS_LOG": "off"}
    return Running(command, env, "stderr", r"listening on (http://\S+)")


def real_config(program, api, home):
    return f"""
        [backends.claude]
        command = "{program}"
        env = {{ ANTHROPIC_BASE_URL = "{api}", CLAUDE_CODE_OAUTH_TOKEN = "any", CLAUDE_CONFIG_DIR = "{home}/claude" }}
        [models.m]
        backend = "claude"
        model = "sonnet"
    """


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
    raises(openai.BadRequestError, "unsupported_parameter", lambda: create(model=model, messages=user("x"), n=2))
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


def main():
    passed = 0
    with tempfile.TemporaryDirectory() as home, service(home, "") as demo:
        client = openai.OpenAI(base_url=f"{demo.url}/v1", api_key="any", max_retries=0)
        answers(client, "demo", "You said: Say hi")
        refuses(client, "demo")
        passed += 2
    for version in VERSIONS:
        program = PROGRAMS.parent / "cli" / version / "package" / "claude"
        if not program.exists():
            print(f"left out: Claude Code {version}, which is not there")
            continue
        with Running([PROGRAMS / "fake-api"], {}, "stdout", r"(http://\S+)") as api:
            with tempfile.TemporaryDirectory() as home, service(home, real_config(program, api.url, home)) as real:
                client = openai.OpenAI(base_url=f"{real.url}/v1", api_key="any", max_retries=0)
                answers(client, "m", "Hello there")
                refuses(client, "m")
                fails(client, "m")
                passed += 3
    print(f"openai {openai.__version__}: {passed} passed, 0 failed")


if __name__ == "__main__":
    os.environ.pop("OPENAI_API_KEY", None)
    main()
