"""LangChain's standard tests of chat models, with `ChatOpenAI` against the service and a real command line.

Run by pytest. HARNESS_PROGRAMS is the folder of the built programs, HARNESS_CLI the version of the
command line. What cannot pass is listed here, each case with its reason.
"""

import base64
import os
import zlib

import httpx
import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from harness import real

CANNOT_PASS = {
    "test_audio_inputs": "Anthropic's API takes no audio",
    "test_anthropic_inputs": "content blocks of Anthropic's own API are none of OpenAI's",
    "test_stream_time": "a benchmark that wants recorded answers",
}


@pytest.fixture(scope="session", autouse=True)
def url():
    with real(os.environ["HARNESS_CLI"]) as running:
        TestChatOpenAI.url = f"{running.url}/v1"
        yield


def png():
    def chunk(kind, data):
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = (2).to_bytes(4) + (2).to_bytes(4) + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(7) + bytes(7))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def no_internet(monkeypatch):
    """The tests fetch a picture and a PDF; here they get others."""

    def get(url, **_):
        body = b"%PDF-1.4\n%%EOF\n" if url.endswith(".pdf") else png()
        return httpx.Response(200, content=body)

    monkeypatch.setattr(httpx, "get", get)


@pytest.fixture(autouse=True)
def listed(request):
    if reason := CANNOT_PASS.get(request.node.originalname):
        pytest.skip(reason)


class TestChatOpenAI(ChatModelIntegrationTests):
    url = None

    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {"model": "m", "base_url": self.url, "api_key": "any", "max_retries": 0, "stream_usage": True}

    @property
    def supports_image_inputs(self):
        return True

    @property
    def supports_image_tool_message(self):
        return True

    @property
    def supports_pdf_inputs(self):
        return True

    @property
    def supports_pdf_tool_message(self):
        return True

    @property
    def supports_json_mode(self):
        return True

    @property
    def model_override_value(self):
        return "claude-haiku"

    @property
    def supported_usage_metadata_details(self):
        kinds = ["reasoning_output", "cache_read_input"]
        return {"invoke": kinds, "stream": kinds}

    def ask(self, text, stream):
        model = self.chat_model_class(**self.chat_model_params)
        if not stream:
            return model.invoke(text)
        full = None
        for chunk in model.stream(text):
            full = chunk if full is None else full + chunk
        return full

    def invoke_with_reasoning_output(self, *, stream=False):
        message = self.ask("scenario:thinking", stream)
        assert message.usage_metadata["output_token_details"]["reasoning"] > 0
        return message

    def invoke_with_cache_read_input(self, *, stream=False):
        return self.ask("Say hi", stream)
