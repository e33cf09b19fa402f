"""A host for the bootstrap script: a Debian 13 with its own processes, network, data device and S3 server.

It is a directory with the files of that system, in namespaces of its own: all its processes end with the first of them, and its mounts
and networks with them. Its network has a second end, from which tests see the host as others do. It runs the btc-assets of the tests.
Creating the directory takes most of the time, so all tests share one host.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.s3 import S3Server, running_s3
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

SCRIPT = "/opt/btc-assets/terraform/bootstrap/setup_timescale.sh"
PACKAGES = ("postgresql-17", "postgresql-17-pgvector", "pgbackrest", "openssl", "ca-certificates", "sudo", "mount", "e2fsprogs")
ADDRESS, OTHER_ADDRESS = "192.0.2.2", "198.51.100.2"  # of the host, in a network that it allows and in one that it does not
ALLOWED = "192.0.2.0/24"
SECRETS = {name: f"{name}-secret-0123456789" for name in ("btc_owner", "btc_loader", "btc_reader", "backup-cipher")}

_TOOLS = ("mmdebstrap", "unshare", "nsenter", "ip", "losetup", "openssl")
_NETWORK_NAMESPACE = 0x40000000  # CLONE_NEWNET

# The first process of the host. Its mounts are invisible outside. It adopts orphans, as init does.
_INIT = """
set -e
root=$1; shift
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount --rbind /dev $root/dev
mount -t tmpfs tmpfs $root/run
mkdir -p $root/run/lock
chroot $root install -d -m 2775 -o postgres -g postgres /run/postgresql
for directory; do
    mkdir -p $root$directory
    mount --bind $directory $root$directory
    mount -o remount,bind,ro $root$directory
done
hostname btc-host
ip link set lo up
echo ready
exec chroot $root bash -c 'while :; do sleep 3600 & wait; done'
"""


@dataclass
class Host:
    """A running host.

    Attributes:
        root: directory with its files.
        device: its block device for data.
        s3: its S3 server, with a bucket `backups`.
        command_lines: arguments and environments of all processes that were seen while the script ran.
        outputs: what the script has printed.
    """

    root: Path
    device: str
    init: int
    neighbour: int
    s3: S3Server | None = None
    command_lines: set[bytes] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)

    def run(self, *command: str, stdin: str = "", check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the host, as root."""
        variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            ["nsenter", f"--target={self.init}", "--mount", "--pid", "--net", "--uts", "chroot", self.root, *command],
            input=stdin, env=variables | environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def btc_assets(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run btc-assets on the host as its units do."""
        script = 'cd; set -a; . /etc/btc-assets/btc-assets.env; exec /opt/btc-assets/.venv/bin/btc-assets "$@"'
        return self.run("runuser", "-u", "btc", "--", "bash", "-c", script, "-", *arguments, check=check)

    @contextmanager
    def unit(self, name: str) -> Iterator[None]:
        """Run the commands of a unit until the end of the block, as its user and with its environment, as systemd does."""
        lines = [line.split("=", 1) for line in (self.root / "etc/systemd/system" / name).read_text().splitlines() if "=" in line]
        service = dict(line for line in lines if line[0] != "EnvironmentFile")
        files = [value.lstrip("-") for key, value in lines if key == "EnvironmentFile"]
        variables = "; ".join(f"[ ! -e {file} ] || . {file}" for file in files)

        def command(line: str) -> list[str]:
            script = f"set -a; {variables}; cd {service['WorkingDirectory']}; exec {line}"
            inside = ["nsenter", f"--target={self.init}", "--mount", "--pid", "--net", "--uts", "chroot", str(self.root)]
            return [*inside, "runuser", "-u", service["User"], "--", "bash", "-c", script]

        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(PROJECT)}
        with tempfile.TemporaryFile("w+") as log:
            before = [line[1] for line in lines if line[0] == "ExecStartPre"]
            for each in [*before, service["ExecStart"]]:
                process = subprocess.Popen(command(each), env=environment, stdout=log, stderr=subprocess.STDOUT)
                if each in before and process.wait() != 0:
                    log.seek(0)
                    raise RuntimeError(f"{name} does not start: {log.read()}")
            try:
                yield
            finally:
                children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
                for child in children:
                    with suppress(psutil.NoSuchProcess):
                        child.terminate()
                psutil.wait_procs(children, PATIENCE_SECONDS)
                process.kill()
                process.wait()

    def set_up(
        self, *options: str, secrets: dict[str, str] = SECRETS, within: tuple[str, ...] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the script with the options of this host, and record what other users could see of it meanwhile."""
        assert self.s3 is not None
        arguments = [
            *within, SCRIPT, "--without-timescaledb", "--data-device", self.device, "--allow", ALLOWED, "--region", "us-east-1",
            "--backup-bucket", "backups", "--backup-endpoint", f"localhost:{self.s3.tls_port}", "--backup-ca", "/etc/ssl/s3.pem",
            "--secrets-from-stdin", *options, "btc", "btc_owner",
        ]  # fmt: skip
        lines = secrets | {"backup-key": self.s3.key, "backup-key-secret": self.s3.secret}
        with self._watching():
            done = self.run(*arguments, stdin="".join(f"{name} {value}\n" for name, value in lines.items()), check=False, **environment)
        self.outputs.append(done.stdout + done.stderr)
        assert done.returncode == 0, self.outputs[-1]
        return done

    @contextmanager
    def _watching(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.01):
                for process in Path("/proc").glob("[0-9]*"):
                    with suppress(OSError):
                        self.command_lines.add((process / "cmdline").read_bytes())
                        if process.joinpath("ns/pid").readlink() == inside:
                            self.command_lines.add((process / "environ").read_bytes())

        inside = Path(f"/proc/{self.init}/ns/pid").readlink()
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def processes(self, name: str) -> list[int]:
        """Ids of its processes with a name whose parent is init."""
        return [child.pid for child in psutil.Process(self.init).children() if child.name() == name and child.status() != "zombie"]

    @contextmanager
    def from_inside(self) -> Iterator[None]:
        """Until the end of the block, this thread and its child processes use the host's network."""
        with _network(self.init):
            yield

    @contextmanager
    def from_outside(self) -> Iterator[None]:
        """Until the end of the block, this thread uses the network outside the host."""
        with _network(self.neighbour):
            yield

    def connect(self, user: str, address: str = ADDRESS, database: str = "btc", **options: Any) -> psycopg.Connection:
        """A connection from outside."""
        parameters: dict[str, Any] = {
            "password": SECRETS.get(user, "none"),
            "sslmode": "require",
            "connect_timeout": PATIENCE_SECONDS,
        } | options
        with self.from_outside():
            return psycopg.connect(host=address, user=user, dbname=database, autocommit=True, options="-c timezone=UTC", **parameters)


@contextmanager
def _network(process: int) -> Iterator[None]:
    """Until the end of the block, this thread uses the network of a process."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(namespace: int) -> None:
        if libc.setns(namespace, _NETWORK_NAMESPACE) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    own, other = (os.open(f"/proc/{name}/ns/net", os.O_RDONLY) for name in ("thread-self", process))
    try:
        enter(other)
        yield
    finally:
        enter(own)
        os.close(own)
        os.close(other)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The host, after the script has run on it once."""
    _require_tools()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="btc-host-")))
        made = stack.enter_context(_started(directory / "root"))
        made.device = stack.enter_context(loop_device(directory / "data.img"))
        (directory / "s3").mkdir()
        with made.from_inside():
            made.s3 = stack.enter_context(running_s3(directory / "s3", "backups", tls=True))
        assert made.s3.certificate is not None
        shutil.copy(made.s3.certificate, made.root / "etc/ssl/s3.pem")
        made.set_up()
        yield made


def _require_tools() -> None:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None] + ([] if os.geteuid() == 0 else ["root"])
    if missing:
        message = f"a host of its own needs Debian's packages mmdebstrap, iproute2 and mount, and root; absent: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    if sys.base_prefix == "/usr":
        pytest.skip("Python lies in /usr, where it would hide the host's own: use one that is installed elsewhere (pyenv, uv)")


@contextmanager
def _started(root: Path) -> Iterator[Host]:
    subprocess.run(
        ["mmdebstrap", "--quiet", "--mode=root", "--variant=apt", f"--include={','.join(PACKAGES)}",
         # As the script and a baked image do it: a cluster is made later, where the data is to lie.
         '--essential-hook=mkdir -p "$1"/etc/postgresql-common/createcluster.d',
         '--essential-hook=echo create_main_cluster = false >"$1"/etc/postgresql-common/createcluster.d/btc-assets.conf',
         '--aptopt=Acquire::Languages "none"', '--aptopt=APT::Install-Recommends "false"',
         "trixie", root, "http://deb.debian.org/debian"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    project = root / "opt/btc-assets"
    project.mkdir(parents=True)
    (project / "terraform").symlink_to(PROJECT / "terraform")
    prefix = Path(sys.prefix).resolve()  # a checkout's .venv may be a link to a place that the host does not have
    (project / ".venv").symlink_to(prefix)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 btc-host\n")
    (root / "root").chmod(0o755)  # Python may lie below it
    spaces = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--net", "--uts", "--fork", "--kill-child"]
    first = subprocess.Popen(
        [*spaces, "bash", "-c", _INIT, "-", root, PROJECT, prefix, sys.base_prefix], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    neighbour = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"], stdout=subprocess.PIPE
    )
    try:
        for process in (first, neighbour):
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        (init,) = psutil.Process(first.pid).children()
        _connect_networks(init.pid, neighbour.pid)
        yield Host(root, "", init.pid, neighbour.pid)
    finally:
        for process in (first, neighbour):
            process.kill()
            process.wait()


def _connect_networks(host: int, neighbour: int) -> None:
    def ip(*arguments: str, inside: int) -> None:
        subprocess.run(["nsenter", f"--target={inside}", "--net", "ip", *arguments], check=True)

    ip("link", "add", "door", "type", "veth", "peer", "name", "street", "netns", str(neighbour), inside=host)
    for address in (ADDRESS, OTHER_ADDRESS):
        ip("address", "add", f"{address}/24", "dev", "door", inside=host)
        ip("address", "add", f"{address.rpartition('.')[0]}.1/24", "dev", "street", inside=neighbour)
    ip("link", "set", "door", "up", inside=host)
    ip("link", "set", "street", "up", inside=neighbour)


@contextmanager
def loop_device(image: Path, megabytes: int = 512) -> Iterator[str]:
    """A block device that is a file."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    device = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)  # at once, or when the host's mounts are gone
