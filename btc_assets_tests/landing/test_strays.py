"""Nothing below a feed's prefix is invisible: it is an object, a marker of another tool, or a stray that is reported by name."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from btc_assets.landing.strays import Stray, read_strays
from btc_assets.landing.zone import LandingZone
from btc_assets.ops.reconcile import reconcile
from btc_assets_tests.support.cases import case
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.landed import PREFIX, listed_paths, put, window
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import FEEDS, StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every
from btc_assets_tests.support.zones import StoreOnS3

MINUTE = "2024/01/10/12/05"


def listings(zone: LandingZone) -> list[tuple[list[str], set[Stray]]]:
    """The paths and the strays in each kind of listing: of an hour, of a day, from a time on, of everything."""
    found: list[tuple[list[str], set[Stray]]] = []
    for narrow in (window("10T12:00", "10T13:00"), window("10", "11")):
        strays: set[Stray] = set()
        found.append(([obj.uri for obj in zone.list_window(PREFIX, narrow, strays)], strays))
    strays = set()
    day = window("10", "11")
    found.append(([obj.uri for page in zone.list_from(PREFIX, day.start, day.end, strays) for obj in page], strays))
    strays = set()
    found.append(([obj.uri for obj in zone.list_all(PREFIX, strays)], strays))
    return found


# ---- names in a bucket

HOSTILE = {
    "/double": "cannot be read, because its name has a part without a name (//): rename it",
    "./dot": "cannot be read, because its name has a part that is . or ..: rename it",
    "../dots": "cannot be read, because its name has a part that is . or ..: rename it",
    "a\tb": "cannot be read, because its name holds control characters: rename it",
    "a\rb": "cannot be read, because its name holds control characters: rename it",
    "a\x7fb": "cannot be read, because its name holds control characters: rename it",
    "\x1b[31mred": "cannot be read, because its name holds control characters: rename it",
    "a//": "cannot be read, because its name ends with a slash: rename it",
}


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_key_that_cannot_be_read_is_a_stray_and_all_others_are_listed(exact_s3: Bucket, name: str) -> None:
    zone = exact_s3.zone()
    put(zone, f"{MINUTE}/0", f"{MINUTE}/zz", "2024/01/10/12/06/later")
    exact_s3.server.client().put_object(Bucket=exact_s3.server.bucket, Key=f"{exact_s3.prefix}/{PREFIX}/{MINUTE}/{name}", Body=b"x")
    shown = name.encode("unicode_escape").decode()
    for uris, strays in listings(zone):
        assert sorted(uris) == [f"{zone.url}/{PREFIX}/{path}" for path in (f"{MINUTE}/0", f"{MINUTE}/zz", "2024/01/10/12/06/later")]
        assert strays == {Stray(f"{zone.url}/{PREFIX}/{MINUTE}/{shown}", HOSTILE[name])}
    strays = set()
    assert zone.days(PREFIX, strays) == {window("10", "11").start}
    assert zone.newest_minute(PREFIX) == window("10", "11").start + timedelta(hours=12, minutes=6)


def test_a_listing_beside_such_a_key_is_what_obstore_would_list(exact_s3: Bucket) -> None:
    zone, client = exact_s3.zone(), exact_s3.server.client()
    put(zone, *(f"{MINUTE}/{number:04}" for number in range(1010)))  # more than a page
    before = zone.list_window(PREFIX, window("10", "11"))
    client.put_object(Bucket=exact_s3.server.bucket, Key=f"{exact_s3.prefix}/{PREFIX}/2024/01/10/12/06//x", Body=b"x")
    strays: set[Stray] = set()
    assert zone.list_window(PREFIX, window("10", "11"), strays) == before
    assert len(strays) == 1


def test_such_a_key_directly_below_the_prefix_is_found_by_days(exact_s3: Bucket) -> None:
    zone, client = exact_s3.zone(), exact_s3.server.client()
    put(zone, f"{MINUTE}/o")
    for key in ("/2024/01/10/12/05/x", "2024//x", "2024/01/10//x"):
        client.put_object(Bucket=exact_s3.server.bucket, Key=f"{exact_s3.prefix}/{PREFIX}/{key}", Body=b"x")
    strays: set[Stray] = set()
    assert zone.days(PREFIX, strays) == {window("10", "11").start}
    assert {stray.uri.removeprefix(f"{zone.url}/{PREFIX}/") for stray in strays} == {"/", "2024//"}
    assert listed_paths(zone, window("10", "11")) == [f"{MINUTE}/o"]


def test_a_name_that_xml_does_not_tell_is_a_stray(s3: Bucket) -> None:
    zone = s3.zone()
    put(zone, f"{MINUTE}/o")
    s3.server.client().put_object(Bucket=s3.server.bucket, Key=f"{s3.prefix}/{PREFIX}/{MINUTE}/a\x01b", Body=b"x")
    for uris, strays in listings(zone):
        assert uris == [f"{zone.url}/{PREFIX}/{MINUTE}/o"]
        assert [stray.reason for stray in strays] == ["cannot be read, because its name holds characters that S3 does not tell: rename it"]


@pytest.mark.parametrize(
    "name",
    ["_SUCCESS", "_metadata", "_common_metadata", "x_$folder$", ".part-0.crc", "part-0.crc", "trades.zip.CHECKSUM", "marker/", "12/"],
)
def test_markers_of_other_tools_are_neither_objects_nor_strays(exact_s3: Bucket, name: str) -> None:
    zone = exact_s3.zone()
    put(zone, f"{MINUTE}/o")
    body = b"" if name.endswith("/") else b"x"
    for folder in (MINUTE, "2024/01/10", "elsewhere"):
        exact_s3.server.client().put_object(Bucket=exact_s3.server.bucket, Key=f"{exact_s3.prefix}/{PREFIX}/{folder}/{name}", Body=body)
    for uris, strays in listings(zone):
        assert (uris, strays) == ([f"{zone.url}/{PREFIX}/{MINUTE}/o"], set())


def test_an_object_whose_key_ends_with_a_slash_is_rejected_once(on_exact_s3: StoreOnS3) -> None:
    uri = on_exact_s3.put_key(f"{MINUTE}/trades/", b"some trades")
    assert on_exact_s3.register(HOUR).rejected == 1
    assert on_exact_s3.register(HOUR).read == 0
    assert on_exact_s3.rows("SELECT uri || '/', reason FROM landing.raw_blobs_5m") == [
        (uri, "its key ends with a slash, so it cannot be read: copy it to a key without")
    ]


# ---- names in a directory


@pytest.fixture
def folder(store: StoreUnderTest) -> Path:
    """A minute folder with one object, in the landing directory of a store."""
    store.put(f"{MINUTE}/o", b"x")
    return store.landing / PREFIX / MINUTE


def make_socket(folder: Path) -> None:
    before = Path.cwd()
    os.chdir(folder)  # the path is too long for a socket
    try:
        socket.socket(socket.AF_UNIX).bind("it")
    finally:
        os.chdir(before)


def make_unreadable_folder(folder: Path) -> None:
    unreadable = Path(os.fsdecode(os.fsencode(folder) + b"/a\xff"))
    unreadable.mkdir()
    (unreadable / "o").touch()


def mutual_links(folder: Path) -> None:
    (folder / "it").mkdir()
    (folder / "it/there").symlink_to(folder)


FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a numbered name": (
        lambda folder: (folder / "trades.jsonl#2").write_bytes(b"x"),
        "trades.jsonl#2",
        "is named like a file that is still being written (#): rename it if it is whole, or remove it",
    ),
    "a line end": (lambda folder: (folder / "a\nb").write_bytes(b"x"), "a\\nb", HOSTILE["a\tb"]),
    "no UTF-8": (
        lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/a\xff")).write_bytes(b"x"),
        "a\\udcff",
        "cannot be read, because its name is no UTF-8: rename it",
    ),
    "a folder that is no UTF-8": (
        make_unreadable_folder,
        "a\\udcff",
        "cannot be read, because its name is no UTF-8: rename it",
    ),
    "a link to itself": (
        lambda folder: (folder / "it").symlink_to("it"),
        "it",
        "is a link that cannot be followed (Too many levels of symbolic links): remove it",
    ),
    "a link to a folder above": (
        lambda folder: (folder / "it").symlink_to(folder.parent),
        "it",
        "is a link that leads back to a folder above it: remove it",
    ),
    "a link back from below": (mutual_links, "it/there", "is a link that leads back to a folder above it: remove it"),
    "a link to nothing": (lambda folder: (folder / "it").symlink_to("nowhere"), "it", "is a link that leads nowhere: remove it"),
    "a pipe": (lambda folder: os.mkfifo(folder / "it"), "it", "is no regular file: remove it"),
    "a socket": (make_socket, "it", "is no regular file: remove it"),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_file_that_can_be_read_is_a_stray_and_all_others_are_listed(store: StoreUnderTest, folder: Path, kind: str) -> None:
    make, name, reason = FILES[kind]
    make(folder)
    zone = store.zone()
    for uris, strays in listings(zone):
        assert uris == [f"{zone.url}/{PREFIX}/{MINUTE}/o"]
        assert strays == {Stray(f"{zone.url}/{PREFIX}/{MINUTE}/{name}", reason)}


def test_links_between_two_folders_end_somewhere(store: StoreUnderTest, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to-a").symlink_to(tmp_path / "a")
    (folder / "a").symlink_to(tmp_path / "a")
    strays: set[Stray] = set()
    list(store.zone().list_all(PREFIX, strays))
    assert [stray.uri.rpartition("/05/")[2] for stray in strays] == ["a/to-b/to-a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_a_stray(store: StoreUnderTest, folder: Path) -> None:
    (folder / "private").mkdir(mode=0)
    for uris, strays in listings(store.zone()):
        assert [uri.rpartition("/")[2] for uri in uris] == ["o"]
        assert [stray.reason for stray in strays] == [
            "is a folder that cannot be read (Permission denied): let this user read it, or move it away"
        ]


# ---- what people see


def test_a_stray_is_shown_by_every_command_and_fails_no_load(on_exact_s3: StoreOnS3) -> None:
    data = (case("27-s3-double-slash") / "ok.jsonl").read_bytes()
    on_exact_s3.put_key("2026/11/20/12/00/ok.jsonl", data)
    stray = on_exact_s3.put_key("2026/11/20/12/00//double.jsonl", data)
    loaded = run_command("load", "--from", "2026-11-20T12:00Z", "--to", "2026-11-20T12:10Z")
    assert loaded.exit_code == 0, loaded.output
    assert on_exact_s3.rows("SELECT count(*) FROM market_data.btc_ticks") == [(200,)]
    for output in (loaded.output, run_command("status").output, run_command("doctor").output):
        words = " ".join(output.split())
        assert f"1 stray(s) belong to no slice: {stray} {HOSTILE['/double']}." in words


def test_a_stray_is_recorded_until_it_is_gone(store: StoreUnderTest) -> None:
    store.land(every(10, 30))
    file = store.landing / PREFIX / "2024/01/10/12/00/trades.jsonl#2"
    file.write_bytes(b"x")
    assert len(store.register(HOUR).strays) == 1
    count, strays = read_strays(store.connection, ["BTCUSDT"])
    assert (count, [stray.uri for stray in strays]) == (1, [f"{store.zone().url}/{PREFIX}/2024/01/10/12/00/trades.jsonl#2"])
    (store.landing / PREFIX / "elsewhere").mkdir()
    (store.landing / PREFIX / "elsewhere/x.csv").write_bytes(b"x")
    found = reconcile(store.connection, store.zone(), FEEDS, None, NOON + timedelta(days=1))
    assert found.counts["stray"] == read_strays(store.connection, ["BTCUSDT"])[0] == 2
    file.rename(file.with_name("trades.jsonl"))
    store.register(HOUR)
    assert read_strays(store.connection, ["BTCUSDT"])[0] == 1
    (store.landing / PREFIX / "elsewhere/x.csv").unlink()
    reconcile(store.connection, store.zone(), FEEDS, None, NOON + timedelta(days=2))
    assert read_strays(store.connection, ["BTCUSDT"])[0] == 0
