"""A real HTTP server that speaks OpenAI's streaming completions, with scripted trouble."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[dict[str, Any]], str]
"""Gives the trouble for a request's body: a key of ``Handler.answers``."""


class Server(ThreadingHTTPServer):
    """Answers completions as ``script`` says; ``seen`` keeps the bodies."""

    daemon_threads = True
    request_queue_size = 128
    script: Script
    first_s = 0.02
    gap_s = 0.004

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
        trouble = self.server.script(body)
        if trouble == "http 503":
            self._send(503, {"error": "overloaded"})
            return
        if trouble == "garbage":
            self.wfile.write(b"SSH-2.0-nothing here\r\n\r\n")
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._stream(trouble, body["max_tokens"], len(body["prompt"]))

    def _stream(self, trouble: str, tokens: int, prompt: int) -> None:
        if trouble == "silent":
            time.sleep(5)
            return
        time.sleep(self.server.first_s)
        for index in range(tokens - (1 if trouble == "short" else 0)):
            if index == 2 and trouble == "disconnect":
                self.close_connection = True
                return
            if index == 2 and trouble == "malformed":
                self._chunk(b'data: {"choices": [{"te\n\n')
            if index == 2 and trouble == "server error":
                self._event({"error": {"message": "out of memory"}})
            self._event({"choices": [{"text": "x"}]})
            time.sleep(self.server.gap_s)
        sent = tokens - (1 if trouble == "short" else 0)
        self._event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": sent}})
        if trouble != "no end":
            self._chunk(b"data: [DONE]\r\n\r\n")
        self._chunk(b"")

    def _event(self, data: dict[str, Any]) -> None:
        # Two pieces, for events do not respect the borders of chunks.
        text = f"data: {json.dumps(data)}\n\n".encode()
        self._chunk(text[:7])
        self._chunk(text[7:])

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _send(self, status: int, data: dict[str, Any]) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


@contextmanager
def serving(script: Script = lambda _: "") -> Iterator[Server]:
    """Run a server in a thread of this process."""
    server = Server()
    server.script = script
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
