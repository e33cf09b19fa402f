"""The guard of the Dagster UI: other pages of a browser cannot use it, people and programs can."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from btc_assets.orchestration.webserver import OwnPagesOnly

JSON = {"content-type": "application/json"}
MUTATION = "mutation { launchRun { __typename } }"


async def answer(_: Request) -> PlainTextResponse:
    return PlainTextResponse("done")


async def answer_messages(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("done")
    await websocket.close()


ROUTES = [
    Route("/graphql", answer, methods=["GET", "POST"]),
    WebSocketRoute("/graphql", answer_messages),
    Route("/{path:path}", answer, methods=["GET", "POST"]),
]


@pytest.fixture
def client() -> TestClient:
    guarded = OwnPagesOnly(Starlette(routes=ROUTES), frozenset({"dagster.example.com"}))
    return TestClient(guarded, base_url="http://localhost:3000", headers={"host": "localhost:3000"})


@pytest.mark.parametrize("host", ["localhost:3000", "LOCALHOST", "127.0.0.1:3000", "[::1]:3000", "dagster.example.com", "localhost:9999"])
def test_the_ui_answers_under_its_own_names(client: TestClient, host: str) -> None:
    assert client.get("/runs", headers={"host": host}).text == "done"


@pytest.mark.parametrize(
    "host", ["evil.example:3000", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "127.0.0.2", "example.com"]
)
def test_a_page_whose_name_was_made_to_resolve_to_this_machine_gets_no_answer(client: TestClient, host: str) -> None:
    answered = client.get("/runs", headers={"host": host})
    assert answered.status_code == 403 and "name the host in BTC_ASSETS_UI_HOSTS" in answered.text


@pytest.mark.parametrize(
    "headers",
    [
        JSON,  # a program, which says nothing about origins
        JSON | {"origin": "http://localhost:3000", "sec-fetch-site": "same-origin"},  # the UI itself
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "application/graphql"},
    ],
)
def test_mutations_of_the_ui_and_of_programs_pass(client: TestClient, headers: dict[str, str]) -> None:
    assert client.post("/graphql", headers=headers, json={"query": MUTATION}).text == "done"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},  # a sandboxed frame, or a file
        {"origin": "http://localhost:8888"},  # another program of this machine, such as a notebook
        {"origin": "https://localhost.evil.example:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},  # a form
    ],
)
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/market_data/btc_ticks"])
@pytest.mark.parametrize("content", ["application/json", "text/plain; x=application/json"])
def test_what_another_page_posts_is_refused(client: TestClient, headers: dict[str, str], path: str, content: str) -> None:
    answered = client.post(path, headers=headers | {"content-type": content}, content="{}")
    assert answered.status_code == 403 and "came from another site" in answered.text


@pytest.mark.parametrize(
    "query",
    [
        MUTATION,
        "query A { version } mutation B { launchRun { __typename } }",
        "# a comment\nmutation{a}",
        "subscription { a }",
        "fragment f on Mutation { a } mutation { ...f }",
        "mutation {",  # does not parse, so nobody knows what it is
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_no_address_starts_anything_whoever_opens_it(client: TestClient, query: str, method: str) -> None:
    answered = client.request(method, "/graphql", params={"query": query})
    assert answered.status_code == 403
    for headers in ({"content-type": "text/plain; x=application/json"}, {"content-type": "application/x-www-form-urlencoded"}):
        assert client.request(method, "/graphql", params={"query": query}, headers=headers).status_code == 403
    if method != "HEAD":
        assert "mutations as JSON only" in answered.text


def test_queries_in_the_address_pass(client: TestClient) -> None:
    assert client.get("/graphql", params={"query": "{ version }"}).text == "done"


def test_a_link_on_another_site_opens_a_page_and_nothing_else(client: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/runs/1", headers=link).text == "done"
    assert client.get("/graphql", params={"query": "{ version }"}, headers=link).status_code == 403
    frame = link | {"sec-fetch-dest": "iframe"}
    assert client.get("/runs/1", headers=frame).status_code == 403
    script = link | {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
    assert client.get("/runs/1", headers=script).status_code == 403


def test_messages_of_another_page_are_refused(client: TestClient) -> None:
    with client.websocket_connect("/graphql", headers={"origin": "http://localhost:3000"}) as connection:
        assert connection.receive_text() == "done"
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/graphql", headers={"origin": "http://evil.example"}):
        pass
