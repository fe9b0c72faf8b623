"""A service under test for clients in Python: the real program with a private home, in front of a
real command line and the fake Messages API."""

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile

PROGRAMS = pathlib.Path(os.environ["HARNESS_PROGRAMS"]).resolve()
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
        """Asks it to end and waits: a service leaves no process behind, and none that still writes."""
        self.process.terminate()
        self.process.wait(timeout=60)


def service(home, config):
    file = pathlib.Path(home, "harness.toml")
    file.write_text(config)
    command = [PROGRAMS / "claude-harness", "serve", "--config", file, "--listen", "127.0.0.1:0"]
    env = {"HOME": home, "PATH": "/usr/bin:/bin", "CLAUDE_HARNESS_LOG": "off"}
    return Running(command, env, "stderr", r"listening on (http://\S+)")


def command_line(version):
    """The real command line of this version, if `tests/run` fetched it."""
    program = PROGRAMS.parent / "cli" / version / "package" / "claude"
    return program if program.exists() else None


@contextlib.contextmanager
def real(version):
    """A service in front of the real command line, with the model `m`."""
    with (
        Running([PROGRAMS / "fake-api"], {}, "stdout", r"(http://\S+)") as api,
        tempfile.TemporaryDirectory() as home,
    ):
        config = f"""
            [backends.claude]
            command = "{command_line(version)}"
            env = {{ ANTHROPIC_BASE_URL = "{api.url}", HTTPS_PROXY = "http://127.0.0.1:9", NO_PROXY = "127.0.0.1", CLAUDE_CODE_OAUTH_TOKEN = "any", CLAUDE_CONFIG_DIR = "{home}/claude" }}
            [models.m]
            backend = "claude"
            model = "sonnet"
            [models.gpt-4o]
            backend = "claude"
            model = "sonnet"
        """
        with service(home, config) as running:
            yield running
