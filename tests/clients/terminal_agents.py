"""Agents that people run in a terminal, against the built service with each real command line: each is told to do something
with its own tools in an empty folder, and does it. Nothing of them reaches beyond loopback."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import harness

NODE = pathlib.Path(os.environ["AGENT_PACKAGES"], "node_modules")
PYTHON = pathlib.Path(os.environ["AGENT_PYTHON"])
WORDS = "written by its own tools"


class Scratch:
    """A folder to work in, a home, and nothing else of this machine."""

    def __init__(self, url):
        self.url = url
        self.all = tempfile.TemporaryDirectory()
        self.home = pathlib.Path(self.all.name, "home")
        self.folder = pathlib.Path(self.all.name, "work")
        self.home.mkdir()
        self.folder.mkdir()
        self.made = self.folder / "made.txt"

    def write(self, path, text):
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def run(self, command, stdin="", **env):
        """What a command prints. It has three minutes."""
        node = pathlib.Path(subprocess.check_output(["which", "node"], text=True).strip()).parent
        env = {
            "HOME": str(self.home),
            "PATH": f"{node}:/usr/local/bin:/usr/bin:/bin",
            "TERM": "dumb",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
            **{name: str(value) for name, value in env.items()},
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "input": stdin}
        done = subprocess.run([str(part) for part in command], env=env, cwd=self.folder, timeout=180, **pipes)
        if os.environ.get("AGENTS_SHOW"):
            print(done.stdout)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def has_made(self, printed):
        assert self.made.exists() and WORDS in self.made.read_text(), printed


def use(tool, **arguments):
    """A prompt at which the fake model calls this tool."""
    return f"scenario:use {tool} {json.dumps(arguments)}"


def say(words):
    """A prompt at which the fake model says these words."""
    return f"scenario:say {json.dumps(words)}"


def codex(at):
    at.write(
        ".codex/config.toml",
        f"""
        model = "claude-sonnet"
        model_provider = "harness"
        web_search = "disabled"
        [model_providers.harness]
        name = "claude-harness"
        base_url = "{at.url}/v1"
        env_key = "HARNESS_KEY"
        wire_api = "responses"
        """,
    )
    command = [NODE / ".bin/codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    printed = at.run([*command, use("exec_command", cmd=f"echo {WORDS} > made.txt")], HARNESS_KEY="any")
    at.has_made(printed)


def claude_code(at):
    program = harness.command_line("2.1.330") or harness.command_line("2.1.197")
    prompt = use("Write", file_path=str(at.made), content=WORDS)
    printed = at.run(
        [program, "-p", "--model", "claude-sonnet", "--allowedTools", "Write", "--", prompt],
        ANTHROPIC_BASE_URL=at.url,
        ANTHROPIC_API_KEY="any",
        CLAUDE_CONFIG_DIR=at.home / "claude",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1,
        DISABLE_AUTOUPDATER=1,
    )
    at.has_made(printed)


def opencode(at):
    config = {
        "provider": {
            "harness": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{at.url}/v1", "apiKey": "any"},
                "models": {"claude-sonnet": {}},
            }
        },
        "model": "harness/claude-sonnet",
        "autoupdate": False,
    }
    (at.folder / "opencode.json").write_text(json.dumps(config))
    prompt = use("write", filePath=str(at.made), content=WORDS)
    # It would put quotes around an argument with spaces.
    at.has_made(at.run([NODE / ".bin/opencode", "run"], stdin=prompt, OPENCODE_DISABLE_AUTOUPDATE=1))


def copilot(at):
    prompt = use("create", path=str(at.made), file_text=WORDS)
    printed = at.run(
        [NODE / ".bin/copilot", "-p", prompt, "--allow-all-tools", "--allow-all-paths"],
        COPILOT_PROVIDER_BASE_URL=f"{at.url}/v1",
        COPILOT_PROVIDER_TYPE="openai",
        COPILOT_PROVIDER_API_KEY="any",
        COPILOT_MODEL="claude-sonnet",
        COPILOT_OFFLINE="true",
    )
    at.has_made(printed)


def continue_cli(at):
    at.write(
        ".continue/config.yaml",
        f"""name: local
version: 1.0.0
schema: v1
models:
  - name: Claude Sonnet
    provider: openai
    model: claude-sonnet
    apiBase: {at.url}/v1
    apiKey: any
    capabilities: [tool_use]
""",
    )
    prompt = use("Write", filepath=str(at.made), content=WORDS)
    config = at.home / ".continue/config.yaml"
    printed = at.run([NODE / ".bin/cn", "-p", "--config", config, "--auto", prompt], CONTINUE_TELEMETRY_ENABLED=0)
    at.has_made(printed)


def aider(at):
    answer = f"made.txt\n```\n{WORDS}\n```\n"
    at.made.write_text("nothing yet\n")
    printed = at.run(
        [
            PYTHON / "aider/bin/aider",
            *["--model", "openai/claude-sonnet", "--edit-format", "whole", "--no-git", "--yes-always"],
            *["--no-check-update", "--no-show-model-warnings", "--analytics-disable", "--no-show-release-notes"],
            *["--message", say(answer), "made.txt"],
        ],
        OPENAI_API_BASE=f"{at.url}/v1",
        OPENAI_API_KEY="any",
    )
    at.has_made(printed)


def llm(at):
    model = f"- model_id: sonnet\n  model_name: claude-sonnet\n  api_base: {at.url}/v1\n"
    (at.home / "llm").mkdir()
    (at.home / "llm/extra-openai-models.yaml").write_text(model)
    printed = at.run([PYTHON / "llm/bin/llm", "-m", "sonnet", "--key", "any", "Say hi"], LLM_USER_PATH=at.home / "llm")
    assert "Hello there" in printed, printed


AGENTS = [codex, claude_code, opencode, copilot, continue_cli, aider, llm]

if __name__ == "__main__":
    wanted = sys.argv[1:] or [agent.__name__ for agent in AGENTS]
    for version in harness.VERSIONS:
        if not harness.command_line(version):
            continue
        with harness.real(version) as service:
            for agent in AGENTS:
                if agent.__name__ in wanted:
                    agent(Scratch(service.url))
                    print(f"Claude Code {version}: {agent.__name__}")
