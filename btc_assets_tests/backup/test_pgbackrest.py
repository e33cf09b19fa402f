"""Running pgBackRest: what it says is read, and how it fails is told in one sentence."""

from __future__ import annotations

import pytest

from btc_assets.backup import pgbackrest
from btc_assets.backup.pgbackrest import error_line, pgbackrest_command, query_pgbackrest
from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings


def test_the_command_of_the_settings_is_split_like_a_shell_does() -> None:
    settings = Settings(pgbackrest="sudo -n -u postgres 'pg backrest'", backup_stanza="btc")
    assert pgbackrest_command(settings) == ["sudo", "-n", "-u", "postgres", "pg backrest", "--stanza=btc"]


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("WARN: slow\nP00  ERROR: [042]: no route\nHINT: none\n", "P00  ERROR: [042]: no route"),
        ("\nsudo: a password is required\nmore\n", "sudo: a password is required"),
        ("", "without a message"),
    ],
    ids=["an error", "no error", "nothing"],
)
def test_the_line_that_says_what_went_wrong_is_found(output: str, line: str) -> None:
    assert error_line(output) == line


def query(program: str) -> str:
    with pytest.raises(UserError) as raised:
        query_pgbackrest(Settings(pgbackrest=program, backup_stanza="btc"), "info")
    return str(raised.value)


def test_a_failure_and_a_timeout_are_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert query("sh -c 'echo ERROR: broken >&2; exit 1'") == (
        "pgBackRest fails (ERROR: broken): correct its configuration or BTC_ASSETS_PGBACKREST."
    )
    monkeypatch.setattr(pgbackrest, "_ANSWER_SECONDS", 0.1)
    assert query("sh -c 'exec sleep 60'") == "pgBackRest has not answered in 0.1 s: check whether its repository can be reached."
