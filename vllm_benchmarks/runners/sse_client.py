"""A streaming client of OpenAI-compatible completions that times every part of an answer.

HTTP/1.1 over asyncio, from the standard library alone: what a client library does between the
socket and its user would be part of every measured gap.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llm_inference_simulator.errors import ConfigError

_LONGEST_LINE = 2**22


class RequestError(Exception):
    """A request that gave no usable answer; ``kind`` groups such failures."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go, and how long they may take, in seconds."""

    base_url: str
    """As ``http://localhost:8000``; ``/v1`` at its end is optional."""
    api_key: str | None = None
    total_timeout_s: float = 600.0
    idle_timeout_s: float = 120.0
    """Longest silence before the first part of an answer, and between parts."""

    def address(self) -> tuple[bool, str, int, str]:
        """TLS, host, port and path prefix; raises :class:`ConfigError` for what is no URL."""
        try:
            parts = urlsplit(self.base_url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--base-url {self.base_url!r} is no address: give one as http://localhost:8000"
            )
        secure = parts.scheme == "https"
        return secure, parts.hostname, port or (443 if secure else 80), _prefix(parts.path)


@dataclass(slots=True)
class StreamedAnswer:
    """Times of an answer, in seconds of ``time.perf_counter``."""

    sent_s: float
    part_s: list[float] = field(default_factory=list)
    """When each part with output arrived."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    """As the server counts; None: it does not say."""


async def stream_completion(endpoint: Endpoint, body: Mapping[str, Any]) -> StreamedAnswer:
    """Send a request and read its answer; raises :class:`RequestError`, and never hangs."""
    try:
        async with asyncio.timeout(endpoint.total_timeout_s):
            return await _stream(endpoint, body)
    except TimeoutError as error:
        limit = str(error) or f"no answer within {endpoint.total_timeout_s:g} s"
        raise RequestError("timeout", limit) from None
    except ConnectionRefusedError as error:
        raise RequestError("connect", error.strerror or str(error)) from None
    except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError) as error:
        raise RequestError("disconnect", f"{type(error).__name__}: {error}") from None
    except OSError as error:
        raise RequestError("connect", error.strerror or str(error)) from None


async def _stream(endpoint: Endpoint, body: Mapping[str, Any]) -> StreamedAnswer:
    secure, host, port, prefix = endpoint.address()
    context = ssl.create_default_context() if secure else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_LONGEST_LINE)
    try:
        answer = StreamedAnswer(sent_s=time.perf_counter())
        writer.write(_request(endpoint, host, f"{prefix}/completions", body))
        await writer.drain()
        await _read_answer(endpoint, reader, answer)
        return answer
    finally:
        writer.close()


def _request(endpoint: Endpoint, host: str, path: str, body: Mapping[str, Any]) -> bytes:
    payload = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        "Accept: text/event-stream",
        f"Content-Length: {len(payload)}",
        "Connection: close",
    ]
    if endpoint.api_key is not None:
        lines.append(f"Authorization: Bearer {endpoint.api_key}")
    return "\r\n".join([*lines, "", ""]).encode() + payload


async def _read_answer(
    endpoint: Endpoint, reader: asyncio.StreamReader, answer: StreamedAnswer
) -> None:
    status, headers = await _read_head(endpoint, reader)
    chunks = _body(endpoint, reader, headers)
    if status != 200:
        text = b"".join([chunk async for chunk in chunks])[:200].decode(errors="replace")
        raise RequestError(f"http {status}", " ".join(text.split()))
    async for data, arrived_s in _events(chunks):
        if data == "[DONE]":
            return
        _take(answer, data, arrived_s)
    raise RequestError("disconnect", "the answer ended without [DONE]")


def _take(answer: StreamedAnswer, data: str, arrived_s: float) -> None:
    try:
        event = json.loads(data)
    except ValueError:
        raise RequestError("malformed", f"an event is not JSON: {data[:80]!r}") from None
    if not isinstance(event, dict):
        raise RequestError("malformed", f"an event is no object: {data[:80]!r}")
    if event.get("error") is not None:
        raise RequestError("server error", str(event["error"])[:200])
    usage = event.get("usage")
    if isinstance(usage, dict):
        answer.prompt_tokens = _count(usage.get("prompt_tokens"))
        answer.output_tokens = _count(usage.get("completion_tokens"))
    choices = event.get("choices")
    if not isinstance(choices, list):
        raise RequestError("malformed", f"an event has no choices: {data[:80]!r}")
    # A token that is part of a letter has no text yet: vLLM sends it as an empty text.
    if choices and isinstance(choices[0], dict) and "text" in choices[0]:
        answer.part_s.append(arrived_s)


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, float]]:
    """Data of server-sent events, each with the time at which its last byte was read."""
    pending = b""
    async for chunk in chunks:
        arrived_s = time.perf_counter()
        pending = (pending + chunk).replace(b"\r\n", b"\n")
        *events, pending = pending.split(b"\n\n")
        for event in events:
            lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines).decode(errors="replace"), arrived_s


async def _read_head(
    endpoint: Endpoint, reader: asyncio.StreamReader
) -> tuple[int, dict[str, str]]:
    head = (await _within(endpoint, reader.readuntil(b"\r\n\r\n"))).decode("latin-1")
    first, *lines = head.split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        raise RequestError("malformed", f"no HTTP answer: {first[:80]!r}")
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _body(
    endpoint: Endpoint, reader: asyncio.StreamReader, headers: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Parts of the body as they arrive: chunked, of a known length, or until the end."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        while True:
            line = await _within(endpoint, reader.readuntil(b"\r\n"))
            try:
                size = int(line.split(b";")[0], 16)
            except ValueError:
                raise RequestError("malformed", f"bad chunk size {line[:40]!r}") from None
            if size == 0:
                return
            yield await _within(endpoint, reader.readexactly(size))
            await _within(endpoint, reader.readexactly(2))
    left = int(headers["content-length"]) if headers.get("content-length", "").isdigit() else None
    while left is None or left > 0:
        part = await _within(endpoint, reader.read(65536 if left is None else min(left, 65536)))
        if not part:
            return
        left = None if left is None else left - len(part)
        yield part


async def _within(endpoint: Endpoint, reading: Coroutine[Any, Any, bytes]) -> bytes:
    try:
        async with asyncio.timeout(endpoint.idle_timeout_s):
            return await reading
    except TimeoutError:
        raise TimeoutError(f"silent for {endpoint.idle_timeout_s:g} s") from None
    except asyncio.LimitOverrunError:
        raise RequestError("malformed", "a line of the answer has no end") from None


def _prefix(path: str) -> str:
    path = path.rstrip("/")
    return path if path.endswith("/v1") else f"{path}/v1"
