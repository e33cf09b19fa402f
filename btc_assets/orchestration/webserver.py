"""Dagster's webserver, guarded against other pages of the browser that shows it.

The UI has no login: who reaches its port may start runs. A browser on that machine also runs the scripts of any other page that is
open in it, and Dagster executes what such a page sends, even a mutation in the query string of an image's address.
`python -m btc_assets.orchestration.webserver` takes the options of `dagster-webserver` and refuses those requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import dagster_webserver.app
from dagster_webserver.cli import cli
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from btc_assets.domain.settings import load_settings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_GRAPHQL_BODIES = frozenset({"application/json", "application/graphql"})  # a page of another origin cannot send these unasked
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OwnPagesOnly:
    """ASGI middleware that refuses what pages of other origins send, and mutations that are no JSON request.

    Args:
        app: the application behind it.
        hosts: names under which the UI may be reached, besides those of this machine itself. A page that makes its own name resolve to
            127.0.0.1 (DNS rebinding) has the UI's origin, but not its name.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        self._app = app
        self._hosts = _LOOPBACK | hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 with the reason, or pass the request on."""
        reason = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if reason is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(reason, 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if _without_port(host) not in self._hosts:
            return "The Dagster UI does not answer under this name: open it as localhost, or name the host in BTC_ASSETS_UI_HOSTS."
        if _is_foreign(headers, host) and not _follows_a_link(scope, headers):
            return "The Dagster UI answers its own pages only, and this request came from another site."
        if _is_graphql(scope) and _bypasses_json(scope, headers) and _mutates(scope):
            return "The Dagster UI takes mutations as JSON only: send them by POST with the content type application/json."
        return None


def _without_port(host: str) -> str:
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _is_foreign(headers: Mapping[str, str], host: str) -> bool:
    """Whether a browser says that another page sent the request. Programs other than browsers say nothing."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host:
        return True
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


def _follows_a_link(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether a person opens a page of the UI from another site, as by a link in a message. That changes nothing."""
    return (
        scope["type"] == "http"
        and scope["method"] in _SAFE_METHODS
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and not _is_graphql(scope)
    )


def _is_graphql(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/graphql")


def _bypasses_json(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether the operation is in the query string, where any link can put it."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return scope["type"] == "http" and (scope["method"] in _SAFE_METHODS or media_type not in _GRAPHQL_BODIES)


def _mutates(scope: Scope) -> bool:
    """Whether the query string holds an operation other than a query; what does not parse, Dagster refuses itself."""
    queries = parse_qs(scope["query_string"].decode("latin-1")).get("query", [])
    try:
        operations = [node for text in queries for node in parse(text).definitions if isinstance(node, OperationDefinitionNode)]
    except (GraphQLError, RecursionError):
        return True
    return any(node.operation != OperationType.QUERY for node in operations)


class GuardedWebserver(DagsterWebserver):  # type: ignore[type-arg]  # its parameters are private types
    """Dagster's webserver behind `OwnPagesOnly`."""

    def build_middleware(self) -> list[Middleware]:
        """The guard first, then Dagster's own."""
        return [Middleware(OwnPagesOnly, hosts=load_settings().ui_hosts), *super().build_middleware()]


def serve() -> None:
    """Run `dagster-webserver`, guarded; arguments are those of that command."""
    # Its command line makes the application from this name and takes no class.
    vars(dagster_webserver.app)["DagsterWebserver"] = GuardedWebserver
    cli(auto_envvar_prefix="DAGSTER_WEBSERVER")


if __name__ == "__main__":
    serve()
