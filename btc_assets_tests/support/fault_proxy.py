"""A proxy in front of an S3 server that produces faults of networks and servers on demand."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from btc_assets_tests.support.waiting import PATIENCE_SECONDS

Fault = Literal["503", "500", "404", "reset", "stall", "cut", "flip"]
OBJECTS = r"^GET .*\.parquet$"  # requests for the content of an object
_ERROR = '<?xml version="1.0"?>\n<Error><Code>{}</Code>\n<Message>{}</Message></Error>'
_ANSWERS = {
    "503": _ERROR.format("SlowDown", "Please reduce your request rate.").encode(),
    "500": _ERROR.format("InternalError", "We encountered an internal error. Please try again.").encode(),
    "404": _ERROR.format("NoSuchBucket", "The specified bucket does not exist").encode(),
}


class FaultProxy:
    """Passes requests on to `upstream`, except those that are to fail.

    Faults: `503` (slow down), `500` (internal error) and `404` (no such bucket) are answers of the proxy itself, `reset` closes the
    connection without an answer, `stall` keeps it open without one, `cut` closes it in the middle of the body, and `flip` inverts the
    byte in the middle of the body.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._faults: Iterator[Fault] = iter(())
        self._after = 0
        self._of = re.compile("")
        self._hooks: list[tuple[re.Pattern[str], Callable[[], object]]] = []
        self.requests = self.failed = 0
        self._lock = threading.Lock()
        self._closed = threading.Event()
        proxy = self

        class Handler(_Handler):
            def fault(self) -> Fault | None:
                return proxy._next(f"{self.command} {self.path}")

            def upstream(self) -> str:
                return proxy._upstream

            def stall(self) -> None:
                proxy._closed.wait()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, *faults: Fault, times: int | None = None, of: str = "", after: int = 0) -> None:
        """Make requests fail, and start to count `requests` and those that `failed`.

        Args:
            faults: one for each request, in turn.
            times: how often each of them; by default without end.
            of: regular expression for the method and path of these requests, such as `GET /bucket/key`.
            after: how many of those requests pass first.
        """
        with self._lock:
            self._faults = cycle(faults) if times is None else iter(faults * times)
            self._of, self._after = re.compile(of), after
            self.requests = self.failed = 0

    def heal(self) -> None:
        """Let all further requests pass."""
        self.fail(times=0)

    def before(self, of: str, action: Callable[[], object]) -> None:
        """Do something once, before the next request whose method and path match the expression `of` is passed on."""
        with self._lock:
            self._hooks.append((re.compile(of), action))

    def _next(self, request: str) -> Fault | None:
        with self._lock:
            self.requests += 1
            due = next((hook for hook in self._hooks if hook[0].search(request)), None)
            if due:
                self._hooks.remove(due)
            fault = None
            if self._of.search(request):
                self._after -= 1
                if self._after < 0:
                    fault = next(self._faults, None)
                    self.failed += fault is not None
        if due:
            due[1]()
        return fault

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
        connection = http.client.HTTPConnection(self.upstream(), timeout=PATIENCE_SECONDS)
        try:
            # The headers unchanged: the signature covers Host as well.
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
        length = {name.lower(): value for name, value in headers}.get("content-length") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if fault == "cut":
            body, self.close_connection = body[:middle], True
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: tests look at what reaches the caller."""
