"""An object that ends the process which reads it does so once."""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from btc_assets.landing.read_marks import ReadMarks
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.trades import HOUR, NOON, every
from btc_assets_tests.support.waiting import wait_for

HEADER = b"trade_time,symbol,trade_id,price,quantity,is_market_maker\n"

# As a fault of a parser does: the interpreter imports this module before any other.
CRASH = """
import os, signal, time, zlib
from pathlib import Path
decompressobj = zlib.decompressobj
class Crashing:
    def __init__(self, *arguments):
        self._inner = decompressobj(*arguments)
    def __getattr__(self, name):
        return getattr(self._inner, name)
    def decompress(self, data, *arguments):
        crash(data[:30])
        return self._inner.decompress(data, *arguments)
def crash(head):
    for name in signal.Signals:
        if name.name.encode() in head:
            os.kill(os.getpid(), name)
    if b"WAIT" in head:
        Path(os.environ["READING"]).touch()
        while not Path(os.environ["READING"] + ".go").exists():
            time.sleep(0.01)
zlib.decompressobj = Crashing
"""

REGISTER = """
import sys
from datetime import timedelta
from btc_assets.domain.settings import load_settings
from btc_assets.domain.slices import Window, parse_time
from btc_assets.landing.registration import RegisterOptions, register_window
from btc_assets.landing.resources import Landing
from btc_assets.store.database import Store
settings = load_settings()
with Store.of(settings).connect() as connection:
    window = Window(parse_time(sys.argv[1]), parse_time(sys.argv[2]))
    options = RegisterOptions(timedelta(minutes=5), reread="reread" in sys.argv)
    print(register_window(connection, Landing(settings).zone(), settings.landing_feeds, window, options).read)
"""


def named_gzip(name: str, number: int = 9) -> bytes:
    """A gzip that carries a name in its header."""
    sink = io.BytesIO()
    with gzip.GzipFile(name, "wb", fileobj=sink) as file:
        file.write(HEADER + b"%d,BTCUSDT,%d,42000.5,0.25,true\n" % (NOON.timestamp() * 1000, number))
    return sink.getvalue()


@pytest.fixture
def crashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that appears while an object that waits is being read; processes that are started crash by what they read."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(CRASH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(PROJECT)]))
    monkeypatch.setenv("READING", str(tmp_path / "reading"))
    return tmp_path / "reading"


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REGISTER, HOUR.start.isoformat(), HOUR.end.isoformat(), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def register(*options: str) -> tuple[int, str]:
    """Register in a process of its own: its exit status, and how many objects it read."""
    process = start(*options)
    output, errors = process.communicate()
    assert process.returncode <= 0, errors
    return process.returncode, output.strip()


def marks(store: StoreUnderTest) -> list[tuple[str, int]]:
    return store.rows("SELECT uri, alone FROM landing.objects_being_read ORDER BY uri")


def statuses(store: StoreUnderTest) -> dict[str, str]:
    return dict(store.rows("SELECT DISTINCT uri, status FROM landing.raw_blobs_5m"))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_an_object_that_ends_its_reader_is_rejected_by_the_next_one_and_the_others_are_registered(
    store: StoreUnderTest, crashing: Path, name: str
) -> None:
    good = store.land(every(1, 60))
    deadly = store.put("2024/01/10/12/00/deadly.csv.gz", named_gzip(name))
    assert register()[0] == -signal.Signals[name]
    assert [uri for uri, _ in marks(store)] == sorted([*good, deadly])
    assert register() == (0, str(len(good) + 1))
    assert statuses(store) == {deadly: "rejected"} | dict.fromkeys(good, "registered")
    ((reason,),) = store.rows("SELECT reason FROM landing.raw_blobs_5m WHERE status = 'rejected'")
    assert reason == (
        f"a process ended while it read this object, and another one that read nothing else ({name}): land it in another form, or have it "
        "read again (btc-assets load --reread)"
    )
    assert register() == (0, "0")
    assert register("reread") == (0, str(len(good) + 1))  # which tries it apart again
    assert statuses(store)[deadly] == "rejected"
    store.put("2024/01/10/12/00/deadly.csv.gz", named_gzip("harmless"))
    assert register() == (0, "1")
    assert statuses(store)[deadly] != "rejected"


def test_a_kill_while_honest_objects_are_read_rejects_none_of_them(store: StoreUnderTest, crashing: Path) -> None:
    good = store.land(every(1, 60))
    slow = store.put("2024/01/10/12/00/slow.csv.gz", named_gzip("WAIT"))
    process = start()
    wait_for(crashing.exists, "the object is being read")
    process.kill()
    process.communicate()
    wait_until_suspected(store, len(good) + 1)
    Path(f"{crashing}.go").touch()
    assert register() == (0, str(len(good) + 1))
    assert statuses(store) == dict.fromkeys([*good, slow], "registered")
    assert marks(store) == []


def test_what_a_living_process_reads_is_no_suspect(store: StoreUnderTest, crashing: Path) -> None:
    slow = store.put("2024/01/10/12/00/slow.csv.gz", named_gzip("WAIT"))
    process = start()
    wait_for(crashing.exists, "the object is being read")
    with store.connect() as connection, ReadMarks(connection, store.zone()) as other:
        assert other.suspects == {}
    Path(f"{crashing}.go").touch()
    assert process.communicate()[0].strip() == "1"
    assert (statuses(store), marks(store)) == ({slow: "registered"}, [])


def test_an_object_that_two_processes_died_of_though_its_trials_passed_is_rejected(store: StoreUnderTest) -> None:
    uri = store.put("2024/01/10/12/00/a.csv.gz", named_gzip("a"))
    ((etag,),) = [(obj.etag,) for obj in store.zone().list_all("Binance/BTCUSDT")]
    store.connection.execute("INSERT INTO landing.objects_being_read VALUES (%s, %s, 'of old', 2)", (uri, etag))
    assert store.register(HOUR).rejections == [
        f"{uri}: 2 processes ended while each read nothing but this object: land it in another form, or have it read again "
        "(btc-assets load --reread)"
    ]
    assert store.register(HOUR, reread=True).registered == 1
    assert marks(store) == []


def wait_until_suspected(store: StoreUnderTest, count: int) -> None:
    """Wait until the server has noticed that a reader was killed."""

    def suspected() -> bool:
        with store.connect() as connection, ReadMarks(connection, store.zone()) as found:
            return len(found.suspects) == count

    wait_for(suspected, "the killed reader's objects are suspects")
