"""The commands `export`: what the client reads, in a file that is whole or not there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import btc_assets as btc
from btc_assets.client.relation import Relation
from btc_assets.client.store import ClientStore
from btc_assets.domain.errors import TransientError
from btc_assets_tests.support.command_line import run_command
from btc_assets_tests.support.s3 import Bucket
from btc_assets_tests.support.stores import StoreUnderTest
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

HOUR = ("2024-01-10T12:00", "2024-01-10T13:00")
TICKS = ("export", "ticks", "--symbol", "BTCUSDT", "--between", *HOUR)


def read_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


READERS: dict[str, Callable[[Path], pa.Table | list[dict[str, Any]]]] = {
    "hour.parquet": pq.read_table,
    "hour.arrow": lambda path: pa.ipc.open_file(path).read_all(),
    "hour.feather": lambda path: pa.ipc.open_file(path).read_all(),
    "hour.csv": lambda path: read_csv(path.read_bytes()),
    "hour.csv.gz": lambda path: read_csv(gzip.decompress(path.read_bytes())),
    "hour.csv.zst": lambda path: read_csv(pa.input_stream(path, compression="zstd").read()),
    "hour.json": lambda path: json.loads(path.read_bytes()),
    "hour.json.gz": lambda path: json.loads(gzip.decompress(path.read_bytes())),
}


@pytest.mark.parametrize("name", READERS)
def test_the_ending_names_the_format(docs_store: StoreUnderTest, name: str) -> None:
    result = run_command(*TICKS, "--to", name)
    assert result.exit_code == 0, result.output
    wanted = btc.connect().ticks("BTCUSDT", HOUR).arrow()
    assert f"Wrote {len(wanted):,} rows to {name}." in result.stderr and result.stdout == ""
    found = READERS[name](Path(name))
    if isinstance(found, pa.Table):
        assert found.to_pylist() == wanted.to_pylist() and found.schema.names == wanted.schema.names
    else:
        assert [int(row["trade_id"]) for row in found] == wanted["trade_id"].to_pylist()
        assert [row["price"] for row in found] == [f"{price:f}" for price in wanted["price"].to_pylist()]
    assert [path.name for path in Path().iterdir()] == [name]


def test_columns_are_written_in_the_order_in_which_they_are_named(docs_store: StoreUnderTest) -> None:
    result = run_command(*TICKS, "--columns", "price, trade_id", "--decimals", "float", "--to", "-")
    assert result.exit_code == 0, result.output
    header, first, *_ = result.stdout.splitlines()
    assert header == "price,trade_id" and float(first.split(",")[0]) > 0
    assert run_command(*TICKS, "--columns", "price,prize", "--to", "-").output.startswith("Error: ")


def test_candles_of_several_symbols(docs_store: StoreUnderTest) -> None:
    result = run_command(
        "export", "candles", "--symbol", "BTCUSDT", "--symbol", "BTCUSDT.P", "--interval", "4h", "--during", "2024-01-10", "--to", "-",
        "--format", "json",
    )  # fmt: skip
    rows = json.loads(result.stdout)
    assert len(rows) == 12 and {row["symbol"] for row in rows} == {"BTCUSDT", "BTCUSDT.P"}


Read = Callable[[ClientStore], Relation]
DAY = "2024-01-11"


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("candles --interval 4h --fill", lambda store: store.candles("BTCUSDT", "4h", DAY, fill=True)),
        ("candles --interval day --tz Europe/Berlin", lambda store: store.candles("BTCUSDT", "day", DAY, tz="Europe/Berlin")),
        ("bars --clock dollar --size 250000.5", lambda store: store.bars("BTCUSDT", DAY, clock="dollar", size="250000.5")),
        ("bars --clock time --size 90m", lambda store: store.bars("BTCUSDT", DAY, clock="time", size="90m")),
        ("bars --clock tick --size 1000", lambda store: store.bars("BTCUSDT", DAY, clock="tick", size=1000)),
        ("features", lambda store: store.features("BTCUSDT", DAY)),
        ("features --columns bars,vpin", lambda store: store.features("BTCUSDT", DAY, ["bars", "vpin"])),
        ("slice-bars", lambda store: store.slice_bars("BTCUSDT", DAY)),
        ("embeddings", lambda store: store.embeddings(DAY, symbol="BTCUSDT")),
        ("slices", lambda store: store.slices(DAY, "BTCUSDT")),
        ("gaps", lambda store: store.gaps(DAY, "BTCUSDT")),
    ],
)
def test_each_kind_of_rows_is_what_the_client_reads(docs_store: StoreUnderTest, arguments: str, read: Read) -> None:
    result = run_command("export", *arguments.split(), "--symbol", "BTCUSDT", "--during", DAY, "--to", "rows.arrow")
    assert result.exit_code == 0, result.output
    wanted = read(btc.connect()).arrow()
    assert len(wanted) and pa.ipc.open_file("rows.arrow").read_all().select(wanted.column_names).equals(wanted)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--to", "2024-01-11"), "--to names the file here, and 2024-01-11 is a time: name the range with --between FROM TO."),
        (("--to", "hour"), "hour has no ending that names a format"),
        (("--to", "hour.parquet.gz"), "hour.parquet.gz would be compressed twice"),
        (("--to", "absent/hour.parquet"), "name a file in a directory that exists"),
        (("--to", "x.csv", "--during", "2024-01-10"), "Name one range: "),
        (("--to", "x.csv", "--from", "2024-01-10"), "Here --to names the file, so the range has another name: --between FROM TO"),
        (("--to", "x.csv", "--columns", "prize"), "prize"),
        (("--to", "x.csv", "--symbol", "ETHUSDT"), "one symbol"),
        (("--to", "s3://bucket"), "hour"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_no_file(
    docs_store: StoreUnderTest, arguments: tuple[str, ...], sentence: str
) -> None:
    result = run_command(*TICKS, *arguments)
    assert result.exit_code in (1, 2) and (sentence in result.output or arguments[1] == "s3://bucket"), result.output
    assert "Traceback" not in result.output and not list(Path().iterdir())


def test_a_device_that_is_full_is_one_sentence(docs_store: StoreUnderTest) -> None:
    refused = run_command(
        "export", "candles", "--interval", "1h", "--symbol", "BTCUSDT", "--during", "2024-01-10", "--format", "csv", "--to", "/dev/full"
    )
    assert refused.exit_code == 1 and "/dev/full cannot be written (No space left on device)" in refused.output


def test_a_range_without_rows_writes_no_file(docs_store: StoreUnderTest) -> None:
    result = run_command("export", "ticks", "--symbol", "BTCUSDT", "--during", "2024-02-01", "--to", "day.csv")
    assert result.exit_code == 1 and not list(Path().iterdir()), result.output


def test_a_file_that_exists_is_replaced_only_if_asked(docs_store: StoreUnderTest) -> None:
    Path("hour.csv").write_text("mine")
    refused = run_command(*TICKS, "--to", "hour.csv")
    assert refused.exit_code == 1 and "hour.csv exists: name another file, or replace it with --force." in refused.output
    assert Path("hour.csv").read_text() == "mine"
    assert run_command(*TICKS, "--to", "hour.csv", "--force").exit_code == 0
    assert Path("hour.csv").read_text().startswith("bucket_5m,")


def test_a_server_that_goes_away_leaves_no_file(docs_store: StoreUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = btc.connect().ticks("BTCUSDT", HOUR).arrow()

    def breaking(*_: object, **__: object) -> Relation:
        def batches() -> Iterator[pa.RecordBatch]:
            yield from whole.slice(0, 10).to_batches()
            raise TransientError("The database server ended the connection: run it again once it is up.")

        return Relation("ticks", whole.schema, lambda: pa.RecordBatchReader.from_batches(whole.schema, batches()))

    monkeypatch.setattr(ClientStore, "ticks", breaking)
    Path("hour.parquet").write_text("of yesterday")
    result = run_command(*TICKS, "--to", "hour.parquet", "--force")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "Error: The database server ended the connection: run it again once it is up.",
    )
    assert [(path.name, path.read_text()) for path in Path().iterdir()] == [("hour.parquet", "of yesterday")]


def interrupted(to: str) -> subprocess.CompletedProcess[str]:
    """An export in a process of its own, which gets Ctrl-C once it has written something."""
    script = f"""
import os, signal, sys
from btc_assets.cli import export, main
def interrupt(*_): os.kill(os.getpid(), signal.SIGINT)
export._Progress.advance = interrupt
sys.argv[1:] = {[*TICKS, "--to", to]!r}
main()
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def test_ctrl_c_leaves_no_file(docs_store: StoreUnderTest) -> None:
    done = interrupted("hour.parquet")
    assert done.returncode == 130 and done.stderr.endswith("\nStopped: nothing was written to hour.parquet.\n"), done.stderr
    assert "Traceback" not in done.stderr and not list(Path().iterdir())


def test_a_reader_that_goes_away_ends_an_export_without_a_word(docs_store: StoreUnderTest) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for form in ("csv", "parquet"):
        done = subprocess.run(
            [sys.executable, "-m", "btc_assets.cli", *TICKS, "--to", "-", "--format", form],
            stdout=writing, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 141 and "Traceback" not in done.stderr and "Error" not in done.stderr, done.stderr
    os.close(writing)


def test_an_arrow_stream_is_read_from_a_pipe(docs_store: StoreUnderTest) -> None:
    result = run_command(*TICKS, "--to", "-", "--format", "arrow")
    assert pa.ipc.open_stream(result.stdout_bytes).read_all().num_rows == len(btc.connect().ticks("BTCUSDT", HOUR).arrow())


def test_an_object_of_s3_is_written_once_it_is_whole(docs_store: StoreUnderTest, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_S3_ENDPOINT", s3.server.endpoint)
    to, client = f"{s3.url}/hour.parquet", s3.server.client()
    done = interrupted(to)
    assert done.returncode == 130 and f"nothing was written to {to}" in done.stderr, done.stderr
    assert "Contents" not in client.list_objects_v2(Bucket=s3.server.bucket, Prefix=s3.prefix)
    assert run_command(*TICKS, "--to", to).exit_code == 0
    data = client.get_object(Bucket=s3.server.bucket, Key=f"{s3.prefix}/hour.parquet")["Body"].read()
    assert pq.read_table(io.BytesIO(data)).num_rows == len(btc.connect().ticks("BTCUSDT", HOUR).arrow())
    refused = run_command(*TICKS, "--to", to)
    assert refused.exit_code == 1 and f"{to} exists" in refused.output
    assert run_command(*TICKS, "--to", to, "--force").exit_code == 0
    assert not list(Path().iterdir())
