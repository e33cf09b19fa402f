"""The processes of `btc-assets dev`: code location, daemon, webserver and the loader of the open slice, started and ended together.

Runs are children of the code location. Whatever is left of services that were killed is ended before new ones start, and so are the runs
that died with them: Dagster itself would wait four hours for those, and nothing else would start meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import yaml

from btc_assets.domain.errors import UserError
from btc_assets.orchestration.lost_runs import end_lost_runs

MODULE = "btc_assets.definitions"
_MARK = "_BTC_ASSETS_DEV"  # in the environment of every process of these services, with their DAGSTER_HOME
_GRACE_SECONDS = 10  # for services to end by themselves
_POLL_SECONDS = 0.1


def serve(home: Path, port: int, environment: Mapping[str, str], *, read_only: bool = False, live: bool = False) -> int:
    """Run the services until a person or a signal stops them, or one of them ends; returns the exit status.

    Args:
        home: DAGSTER_HOME.
        port: of the webserver, on 127.0.0.1.
        environment: of the processes.
        read_only: the UI shows everything and starts nothing.
        live: also load the open slice, as often as the settings say.

    Raises:
        UserError: services of this home run already.
    """
    with _only_services_of(home), tempfile.TemporaryDirectory(prefix="btc-assets-dev-") as directory:
        _end_all(home, signal.SIGTERM)  # what is left of services whose own process was killed
        address = code_location_socket(home)
        with dg.DagsterInstance.get() as instance:
            for run_id in end_lost_runs(instance, socket=Path(address).name):
                print(f"Run {run_id} had died with an earlier btc-assets dev: it is started again.", file=sys.stderr)
        workspace = Path(directory) / "workspace.yaml"
        server = {"location_name": "btc_assets", "socket": address}
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        Path(address).unlink(missing_ok=True)  # of a code location that was killed
        try:
            with _Services(environment, home) as services:
                services.start(_code_location_command(address))
                status = services.wait(lambda: _answers(address))  # or its first clients would report that it cannot be reached
                if status is not None:
                    return status or 1
                for command in _client_commands(workspace, port, read_only):
                    services.start(command)
                if live:
                    services.start([sys.executable, "-m", "btc_assets.cli", "live"])
                return services.wait() or 1
        except KeyboardInterrupt:
            return 0
        finally:
            Path(address).unlink(missing_ok=True)


def code_location_socket(home: Path) -> str:
    """Where the code location of this home listens. Runs that it starts have the address among their tags."""
    # Not in the home, whose path may be longer than a socket's may be. Only this user can reach it: whoever reaches it can start runs.
    directory = Path(tempfile.gettempdir()) / f"btc-assets-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid() or directory.stat().st_mode & 0o077:
        raise UserError(f"{directory} is open to other users: remove it, or set TMPDIR to a directory of your own.")
    name = hashlib.sha256(f"{socket.gethostname()} {home}".encode()).hexdigest()[:16]
    return str(directory / f"{name}.sock")


@contextmanager
def _only_services_of(home: Path) -> Iterator[None]:
    """Hold the lock of a home; the kernel releases it when this process ends, whichever way it does."""
    with (home / "dev.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"btc-assets dev runs on {home} already: use its UI, or stop it first.") from None
        yield


def _marked(home: Path) -> list[psutil.Process]:
    """The processes that services of this home started; not an embedded server, which others may use."""
    found = psutil.process_iter(["environ", "name"])
    return [each for each in found if (each.info["environ"] or {}).get(_MARK) == str(home) and each.info["name"] != "postgres"]


def _end_all(home: Path, first: signal.Signals) -> None:
    """Ask the processes of a home's services to end, and kill those that do not."""
    alive = _marked(home)
    for number in (first, signal.SIGKILL):
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        _, alive = psutil.wait_procs(alive, _GRACE_SECONDS)


def _code_location_command(address: str) -> list[str]:
    options = "--socket", address, "--module-name", MODULE, "--location-name", "btc_assets"
    return [sys.executable, "-m", "btc_assets.orchestration.code_server", "code-server", "start", *options]


def _client_commands(workspace: Path, port: int, read_only: bool) -> Iterator[list[str]]:
    yield [sys.executable, "-m", "btc_assets.orchestration.daemon", "run", "--workspace", str(workspace)]
    webserver = [sys.executable, "-m", "btc_assets.orchestration.webserver", "--workspace", str(workspace)]
    yield [*webserver, "--host", "127.0.0.1", "--port", str(port), *(["--read-only"] if read_only else [])]


class _Services:
    """Child processes that end together.

    Args:
        environment: of the processes.
        home: DAGSTER_HOME, with which they are marked.
    """

    def __init__(self, environment: Mapping[str, str], home: Path) -> None:
        self._environment, self._home = dict(environment) | {_MARK: str(home)}, home
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False

    def __enter__(self) -> _Services:
        # A shell that starts a command in the background makes it, and all its children, ignore SIGINT; these end by that signal.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        _end_all(self._home, signal.SIGINT)

    def _stop(self, *_: object) -> None:
        if not self._stopping:  # impatience must not leave processes behind, nor two signals at once
            self._stopping = True
            raise KeyboardInterrupt

    def start(self, command: Sequence[str]) -> None:
        self._children.append(subprocess.Popen(command, env=self._environment))

    def wait(self, until: Callable[[], bool] = lambda: False) -> int | None:
        """Wait until something is true, then return None; if a process ends before, return its exit status."""
        while not until():
            for child in self._children:
                if child.poll() is not None:
                    return child.returncode
            time.sleep(_POLL_SECONDS)
        return None


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(address) == 0
