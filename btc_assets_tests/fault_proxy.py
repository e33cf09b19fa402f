"""A proxy in front of an S3 server that makes what networks and servers do wrong happen on demand."""

from __future__ import annotations

import http.client
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

Fault = Literal["503", "404", "reset", "stall", "cut", "flip"]
_ERROR = '<?xml version="1.0"?>\n<Error><Code>{}</Code>\n<Message>{}</Message></Error>'
_ANSWERS = {
    "503": _ERROR.format("SlowDown", "Please reduce your request rate.").encode(),
    "404": _ERROR.format("NoSuchBucket", "The specified bucket does not exist").encode(),
}


class FaultProxy:
    """Passes requests on to `upstream`, except those that are to fail.

    Faults: `503` (slow down) and `404` (no such bucket) are answered instead of asking, `reset` closes the connection
    without an answer, `stall` keeps it open, `cut` closes it in the middle of the body, `flip` inverts the byte in the
    middle of the body.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._faults: deque[Fault] = deque()
        self._always: Fault | None = None
        self.requests = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        proxy = self

        class Handler(_Handler):
            def fault(self) -> Fault | None:
                return proxy._next()

            def upstream(self) -> str:
                return proxy._upstream

            def stall(self) -> None:
                proxy._closed.wait()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, fault: Fault, times: int | None = None) -> None:
        """Let the next `times` requests fail, or all of them; counts requests from here."""
        with self._lock:
            self._always = fault if times is None else None
            self._faults = deque([fault] * (times or 0))
            self.requests = 0

    def _next(self) -> Fault | None:
        with self._lock:
            self.requests += 1
            return self._faults.popleft() if self._faults else self._always

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def fault(self) -> Fault | None:
        raise NotImplementedError

    def upstream(self) -> str:
        raise NotImplementedError

    def stall(self) -> None:
        raise NotImplementedError

    def _pass_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.fault()
        if fault in ("reset", "stall"):
            if fault == "stall":
                self.stall()
            self.close_connection = True
            return
        if fault in _ANSWERS:
            self._answer(int(fault), [("Content-Type", "application/xml")], _ANSWERS[fault])
            return
        connection = http.client.HTTPConnection(self.upstream(), timeout=30)
        try:
            # The headers as they are: the signature covers Host, too.
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(sent)
            answer = connection.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read(), fault)
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None = None) -> None:
        middle = len(body) // 2
        if fault == "flip" and body:
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = dict((name.lower(), value) for name, value in headers).get("content-length") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if fault == "cut":
            body, self.close_connection = body[:middle], True
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at what reaches the caller."""
