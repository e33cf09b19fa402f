"""The bootstrap script sets up a host: it runs on a Debian 13 of its own, with Debian's PostgreSQL 17, pgvector and pgBackRest.

Debian has no packages of TimescaleDB, so it runs with --without-timescaledb. How these packages are chosen, pinned and verified is
tested with stand-ins from a signed mirror.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import boto3
import psycopg
import pytest

from btc_assets.domain.slices import SLICE
from btc_assets_tests.support.databases import write_ticks
from btc_assets_tests.support.hosts import ADDRESS, OTHER_ADDRESS, SCRIPT, SECRETS, Host, loop_device
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.s3_events import running_moto
from btc_assets_tests.support.trades import every
from btc_assets_tests.support.waiting import PATIENCE_SECONDS, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("host")]

BOOTSTRAP = PROJECT / "terraform/bootstrap"
STATE = ("/etc/postgresql", "/etc/postgresql-common", "/etc/pgbackrest.conf", "/etc/btc-assets", "/etc/sudoers.d", "/etc/systemd/system",
         "/etc/apt", "/etc/fstab", "/var/lib/postgresql/tls")  # fmt: skip
SAFE = string.ascii_letters + string.digits + "._-"  # in the URL of an object
ROLES = ("btc_owner", "btc_loader", "btc_reader")


def test_every_step_of_the_first_run_is_done(host: Host) -> None:
    assert "applied" in host.outputs[0] and "took the first full backup" in host.outputs[0]
    assert host.run("findmnt", "-no", "SOURCE,FSTYPE", "/var/lib/postgresql").stdout.split() == [host.device, "ext4"]
    with host.connect("btc_owner") as connection:
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
    # As the units do it: as the user btc, through the local socket, with the sudo rule for pgBackRest.
    assert "full" in host.btc_assets("ops", "backup-status").stdout
    assert host.btc_assets("db", "status").returncode == 0


def test_a_second_run_changes_nothing(host: Host) -> None:
    def state() -> tuple[list[int], str, int]:
        files = host.run("find", *STATE, "-type", "f", "-printf", "%p %M %u %g %T@ %i\\n").stdout
        return host.processes("postgres"), files, backups(host)

    before = state()
    assert host.set_up().stdout.endswith("Done: everything was as it should be, nothing was changed.\n")
    assert state() == before


def backups(host: Host) -> int:
    return host.btc_assets("ops", "backup-status").stdout.count(" full ")


def test_the_loader_loads_slices_but_can_make_alter_or_drop_no_table(host: Host) -> None:
    ticks = every(1, 900)
    with host.connect("btc_loader") as connection:
        window = write_ticks(connection, ticks)
        assert window.end - window.start == 3 * SLICE
        assert connection.execute("SELECT count(*), sum(quantity) FROM market_data.btc_ticks").fetchone() == (900, 225)
        for statement in (
            "DROP TABLE market_data.btc_ticks", "TRUNCATE market_data.btc_ticks", "ALTER TABLE market_data.btc_ticks ADD note text",
            "CREATE INDEX ON market_data.btc_ticks (price)", "CREATE TABLE market_data.mine (id int)", "CREATE TABLE public.mine (id int)",
            "CREATE SCHEMA mine", "CREATE EXTENSION pg_trgm", "CREATE ROLE mine", "SET ROLE btc_owner", "GRANT btc_owner TO btc_loader",
            "ALTER ROLE btc_reader SUPERUSER", "COPY (SELECT 1) TO PROGRAM 'cat'", "SELECT pg_read_file('/etc/passwd')",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
    with host.connect("btc_owner") as connection, connection.transaction(force_rollback=True):
        connection.execute("DROP TABLE market_data.btc_ticks CASCADE")  # only the missing rights forbid it


def test_the_reader_reads_and_writes_nothing(host: Host) -> None:
    with host.connect("btc_owner") as connection:
        write_ticks(connection, every(1, 300))
    with host.connect("btc_reader") as connection:
        assert connection.execute("SELECT count(*) > 0 FROM market_data.btc_ticks").fetchone() == (True,)
        for statement in (
            "INSERT INTO market_data.btc_ticks SELECT * FROM market_data.btc_ticks LIMIT 1", "UPDATE market_data.btc_ticks SET price = 1",
            "DELETE FROM market_data.btc_ticks", "TRUNCATE market_data.btc_ticks", "DELETE FROM landing.raw_blobs_5m",
            "CREATE TABLE public.mine (id int)", "CREATE TEMPORARY TABLE mine (id int)",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_dagsters_database_is_open_to_dagster_alone(host: Host) -> None:
    def enter(role: str, database: str) -> subprocess.CompletedProcess[str]:
        return host.run("runuser", "-u", "btc", "--", "psql", "-U", role, "-d", database, "-Atc", "SELECT current_user", check=False)

    assert enter("btc_dagster", "dagster").stdout == "btc_dagster\n"
    for role, database in (("btc_dagster", "btc"), *((role, "dagster") for role in ROLES), ("btc_loader", "postgres")):
        assert "permission denied for database" in enter(role, database).stderr
    # Only the operating system's user postgres is a superuser.
    assert "Peer authentication failed" in enter("postgres", "btc").stderr
    assert "Peer authentication failed" in host.run("psql", "-U", "btc_owner", "btc", check=False).stderr


@pytest.mark.parametrize("role", ROLES)
def test_from_outside_a_role_needs_tls_its_password_and_an_allowed_network(host: Host, role: str) -> None:
    with host.connect(role) as connection:
        assert connection.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == ("TLSv1.3",)
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects connection .* no encryption"):
        host.connect(role, sslmode="disable")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        host.connect(role, password="another-password")
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects connection"):
        host.connect(role, OTHER_ADDRESS)
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects connection"):
        host.connect(role, database="dagster")


@pytest.mark.parametrize("role", ["postgres", "btc_dagster"])
def test_superuser_and_dagster_are_refused_from_outside(host: Host, role: str) -> None:
    for database in ("btc", "dagster", "postgres"):
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects connection"):
            host.connect(role, database=database)


def test_no_secret_gets_into_log_process_list_or_output(host: Host) -> None:
    assert host.s3 is not None
    with host.connect("btc_owner") as connection, pytest.raises(psycopg.errors.UndefinedObject):
        connection.execute("ALTER ROLE nobody PASSWORD 'a-slip-of-the-pen'")
    log = (host.root / "var/log/postgresql/postgresql-17-main.log").read_bytes()
    assert b'role "nobody" does not exist' in log
    assert any(SCRIPT.encode() in line for line in host.command_lines)  # the processes were seen
    for secret in (*SECRETS.values(), host.s3.secret, "a-slip-of-the-pen"):
        assert secret.encode() not in log
        assert not [line for line in host.command_lines if secret.encode() in line]
        assert not [output for output in host.outputs if secret in output]
    # The one file that must hold them is readable by its owner and group alone.
    holders = host.run(
        "grep", "-rlE", "|".join((*SECRETS.values(), host.s3.secret)), "/etc", "/var/lib/btc-assets", "/var/log", "/run", check=False
    )
    assert holders.stdout.split() == ["/etc/pgbackrest.conf"]
    assert host.run("stat", "-c", "%a %U %G", "/etc/pgbackrest.conf").stdout == "640 root postgres\n"


def test_the_user_btc_can_query_pgbackrest_but_not_control_it(host: Host) -> None:
    ask = "sudo -n -u postgres /opt/btc-assets/terraform/bootstrap/read_backups.sh --stanza=btc"
    for command, answer in (
        (f"{ask} --output=json info", '"backup"'),
        (f"{ask} expire", "is not for the user btc"),
        (f"{ask} --config=/tmp/mine info", "is not for the user btc"),
        ("sudo -n -u postgres pgbackrest --stanza=btc info", "a password is required"),
        ("sudo -n -u postgres psql", "a password is required"),
    ):
        done = host.run("runuser", "-u", "btc", "--", "sh", "-c", command, check=False)
        assert answer in done.stdout + done.stderr


def test_a_new_host_takes_over_the_data_volume_with_passwords_from_the_parameter_store(host: Host, tmp_path: Path) -> None:
    """Everything but the volume is gone; of the passwords, the loader's has been changed in the parameters."""
    with host.connect("btc_owner") as connection:
        write_ticks(connection, every(1, 300))
        before = connection.execute("SELECT count(*), sum(price) FROM market_data.btc_ticks").fetchone()
    kept = backups(host)
    host.run("pg_ctlcluster", "17", "main", "stop")
    host.run("umount", "/var/lib/postgresql")
    host.run(
        "sh",
        "-c",
        "rm -rf /etc/postgresql/17 /etc/pgbackrest.conf /etc/btc-assets /etc/sudoers.d/btc-assets /etc/systemd/system/btc-*; userdel btc",
    )
    host.run("sed", "-i", "/postgresql/d", "/etc/fstab")
    names = {"btc_owner": "--password-parameter", "btc_loader": "--loader-password-parameter", "btc_reader": "--reader-password-parameter",
             "backup-cipher": "--backup-cipher-parameter"}  # fmt: skip
    values = SECRETS | {"btc_loader": "changed-in-the-store-0123"}
    with host.from_inside(), running_moto(tmp_path) as endpoint:
        store = boto3.client("ssm", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret")
        for name, value in values.items():
            store.put_parameter(Name=f"/btc/{name}", Value=value, Type="SecureString")
        options = [part for name, option in names.items() for part in (option, f"/btc/{name}")]
        aws = {"AWS_ENDPOINT_URL_SSM": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        done = host.set_up(*options, secrets={}, within=(), **aws)
    assert "CREATE" not in done.stdout and "made /var/lib/postgresql/17/main" not in done.stdout and "up to date" in done.stdout
    assert re.findall("set the password of (.*)", done.stdout) == ["btc_loader"]
    assert not [line for line in host.command_lines if b"changed-in-the-store" in line]
    with host.connect("btc_loader", password="changed-in-the-store-0123") as connection:
        assert connection.execute("SELECT count(*), sum(price) FROM market_data.btc_ticks").fetchone() == before
    assert backups(host) == kept
    host.set_up()  # the loader's password is again what the other tests use


def test_dagster_runs_as_its_units_and_can_be_reached_from_the_host_alone(host: Host) -> None:
    host.run("install", "-d", "-m", "0700", "-o", "btc", "-g", "btc", "/run/btc-dagster")  # RuntimeDirectory
    with ExitStack() as stack:
        for name in ("code", "daemon", "webserver"):
            stack.enter_context(host.unit(f"btc-dagster-{name}.service"))
        with host.from_inside():
            asked = (
                "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } jobs { name } } } } "
                "instance { daemonHealth { allDaemonStatuses { daemonType required healthy } } } }"
            )
            url = f"http://127.0.0.1:3000/graphql?{urlencode({'query': asked})}"

            def answer() -> dict[str, Any]:
                try:
                    with urlopen(url, timeout=PATIENCE_SECONDS) as reply:
                        return dict(json.load(reply)["data"])
                except OSError:
                    return {}

            repositories: list[dict[str, Any]] = []

            def location_is_loaded() -> bool:
                repositories[:] = answer().get("repositoriesOrError", {}).get("nodes", [])
                return bool(repositories)

            def daemons_are_healthy() -> bool:
                statuses = answer().get("instance", {}).get("daemonHealth", {}).get("allDaemonStatuses", [])
                required = [each["healthy"] for each in statuses if each["required"]]
                return len(required) >= 4 and all(required)

            # Webserver and daemon may be there before the code location is.
            wait_for(location_is_loaded, "the code location is loaded")
            wait_for(daemons_are_healthy, "the daemons are healthy")
            (repository,) = repositories
        assert repository["location"] == {"name": "btc_assets"}
        assert {"ingest", "maintain", "watch_backups"} <= {job["name"] for job in repository["jobs"]}
        with host.from_outside(), pytest.raises(OSError):
            urlopen(f"http://{ADDRESS}:3000/", timeout=5)
    ours = PROJECT / "btc_assets/orchestration/dagster.yaml"
    theirs = host.run("tail", "-n", "+2", "/var/lib/btc-assets/dagster/dagster.yaml").stdout  # the first line is a stamp
    assert theirs == ours.read_text()


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        absent("systemd-analyze")
    for unit in (BOOTSTRAP / "systemd").iterdir():  # the programs are where they are on a host only
        (tmp_path / unit.name).write_text(
            re.sub("/opt/btc-assets/.venv/bin/|/usr/bin/(?=pgbackrest)", f"{Path(sys.executable).parent}/", unit.read_text())
        )
    checked = subprocess.run(["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True)
    said = [line for line in checked.stderr.splitlines() if "btc-" in line and "pgbackrest" not in line]
    assert said == []


def test_another_major_version_than_the_volumes_is_refused(host: Host) -> None:
    with pytest.raises(
        AssertionError, match=r"/var/lib/postgresql/17/main is a cluster of PostgreSQL 17: name that version with --postgresql"
    ):
        host.set_up("--postgresql", "15")


@pytest.mark.parametrize("content", ["raw data", "a partition table"])
def test_a_device_that_holds_anything_is_never_formatted(host: Host, tmp_path: Path, content: str) -> None:
    image = tmp_path / "image"
    with loop_device(image, 16) as device:
        with open(device, "r+b") as file:
            file.write(
                b"trades" * 1000
                if content == "raw data"
                else bytes(446) + bytes((0, 0, 2, 0, 131, 0, 9, 0, 8, 0, 0, 0, 64)) + bytes(51) + b"\x55\xaa"
            )
        before = image.read_bytes()
        with pytest.raises(AssertionError, match=f"{device} holds something without a file system: it is not formatted"):
            # On a host whose own volume is not mounted.
            host.set_up(
                "--data-device",
                device,
                within=("unshare", "--mount", "--propagation=unchanged", "sh", "-c", 'umount -l /var/lib/postgresql; exec "$@"', "-"),
            )
    assert image.read_bytes() == before


# ---- options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["btc"], "Name the database and its owner"),
        (["btc", "btc_owner", "--nonsense", "1"], "--nonsense is unknown"),
        (["btc", "btc_owner", "--allow"], "--allow is unknown or lacks its value"),
        (["btc", "btc_owner", "--allow", "0.0.0.0/0"], "--allow 0.0.0.0/0 is no range"),
        (["btc", "btc_owner", "--allow", "10.20.0.0/24"], "needs a password for the role btc_owner"),
        (["btc", 'owner"; DROP DATABASE btc'], "cannot be used"),
        (["btc", "postgres"], "cannot be used"),
        (["btc", "btc_loader"], "that is another role"),
        (["btc", "btc_owner", "--postgresql", "14"], "PostgreSQL 14 is not supported"),
        (["btc", "btc_owner", "--backup-bucket", "backups", "--region", "us-east-1"], "needs a passphrase for backups"),
        (["btc", "btc_owner", "--backup-bucket", "back\nups", "--region", "us-east-1"], "holds a character that no name of AWS"),
        (["btc", "btc_owner", "--password-parameter", "/btc/owner"], "SSM parameters need --region"),
        (["btc", "btc_owner", "--package-mirror", "https://mirror"], "needs --mirror-key"),
        (["btc", "btc_owner", "--tls-key", "/nowhere"], "/nowhere, cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_are_checked_before_anything_is_done(host: Host, arguments: list[str], message: str) -> None:
    done = host.run(SCRIPT, *arguments, check=False)
    assert done.returncode == 2 and message in done.stderr
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("memory_mb", "cpus", "expected"),
    [
        (1024, 1, {"shared_buffers": "256MB", "work_mem": "4MB", "maintenance_work_mem": "128MB", "max_wal_size": "1024MB"}),
        (4096, 2, {"shared_buffers": "1024MB", "effective_cache_size": "3072MB", "maintenance_work_mem": "512MB", "work_mem": "16MB",
                   "max_wal_size": "4096MB", "max_connections": "50", "max_worker_processes": "21", "max_parallel_workers": "2",
                   "timescaledb.max_background_workers": "16", "random_page_cost": "1.1", "jit": "off",
                   "default_toast_compression": "lz4", "shared_preload_libraries": "'timescaledb'"}),
        (16384, 4, {"shared_buffers": "4096MB", "work_mem": "64MB", "maintenance_work_mem": "2048MB", "max_worker_processes": "23"}),
        (131072, 32, {"shared_buffers": "32768MB", "work_mem": "64MB", "maintenance_work_mem": "2048MB", "max_wal_size": "16384MB",
                      "max_parallel_workers": "32", "max_parallel_workers_per_gather": "4"}),
    ],
)  # fmt: skip
def test_settings_follow_memory_and_cpus(memory_mb: int, cpus: int, expected: dict[str, str]) -> None:
    done = subprocess.run(
        [BOOTSTRAP / "setup_timescale.sh", "--print-settings", "--memory-mb", str(memory_mb), "--cpus", str(cpus)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    settings = dict(line.split(" = ") for line in done.stdout.splitlines() if " = " in line)
    assert {name: settings[name] for name in expected} == expected


def test_the_scripts_are_clean_for_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        absent("shellcheck")
    scripts = sorted(path.relative_to(PROJECT) for path in BOOTSTRAP.rglob("*.sh"))
    checked = subprocess.run(["shellcheck", "--external-sources", *scripts], cwd=PROJECT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


# ---- packages from a mirror


@dataclass
class Mirror:
    """A signed repository on the host, of packages that have a name and a version and nothing else."""

    host: Host
    directory: Path
    keys: Path

    def add(self, name: str, version: str) -> None:
        package = self.directory.parent / "package"
        (package / "DEBIAN").mkdir(parents=True)
        (package / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a test\nDescription: stand-in\n"
        )
        subprocess.run(
            ["dpkg-deb", "--build", "-Znone", package, self.directory / f"{name}_{version}.deb"], check=True, capture_output=True
        )
        shutil.rmtree(package)

    def sign(self, key: str) -> None:
        environment = os.environ | {"GNUPGHOME": str(self.keys)}
        if subprocess.run(["gpg", "--batch", "--list-keys", key], env=environment, capture_output=True).returncode:
            generate = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", key, "ed25519", "sign"]
            subprocess.run(generate, env=environment, check=True, capture_output=True)
        subprocess.run([BOOTSTRAP / "sign_packages.sh", self.directory, key], env=environment, check=True)

    def install(self) -> subprocess.CompletedProcess[str]:
        options = {"--postgresql": "15", "--package-mirror": "file:///mirror", "--mirror-key": "/trusted.asc"}
        return self.host.run(SCRIPT, "--install-only", *(part for option in options.items() for part in option), check=False)

    def installed(self, name: str) -> str:
        return self.host.run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", name, check=False).stdout


@pytest.fixture
def mirror(host: Host) -> Iterator[Mirror]:
    """A mirror with stand-ins for PostgreSQL 15 and two versions of TimescaleDB; its key is the one that the host trusts."""
    tools = [tool for tool in ("apt-ftparchive", "dpkg-deb", "gpg") if shutil.which(tool) is None]
    if tools:
        absent(f"{', '.join(tools)} (packages apt-utils, gpg)")
    directory = host.root / "mirror"
    directory.mkdir()
    with tempfile.TemporaryDirectory(prefix="btc-keys-") as keys:  # a short path: gpg's agent listens below it
        made = Mirror(host, directory, Path(keys))
        for name in ("postgresql-15", "postgresql-15-pgvector"):
            made.add(name, "15.20-1+stand~in")
        for version in ("2.28.3~debian13", "2.30.1~debian13"):
            made.add("timescaledb-2-postgresql-15", version)
            made.add("timescaledb-2-loader-postgresql-15", version)
        made.sign("mirror@btc.test")
        shutil.copy(directory / "mirror.asc", host.root / "trusted.asc")
        yield made
        subprocess.run(["gpgconf", "--kill", "all"], env=os.environ | {"GNUPGHOME": keys}, check=True)
    shutil.rmtree(directory)


def test_packages_come_from_a_mirror_whose_signature_is_right(mirror: Mirror) -> None:
    mirror.sign("somebody@else.test")
    refused = mirror.install()
    assert refused.returncode != 0 and "is not signed" in refused.stderr
    assert mirror.installed("timescaledb-2-postgresql-15") == ""

    mirror.sign("mirror@btc.test")
    package = next(mirror.directory.glob("timescaledb-2-postgresql-15_2.28*"))
    original = package.read_bytes()
    package.write_bytes(original.replace(b"stand-in", b"malware!"))
    refused = mirror.install()
    assert refused.returncode != 0 and "Hash Sum mismatch" in refused.stderr
    assert mirror.installed("timescaledb-2-postgresql-15") == ""

    package.write_bytes(original)
    done = mirror.install()
    assert done.returncode == 0, done.stderr
    # 2.29 and later do not know PostgreSQL 15 any more.
    assert mirror.installed("timescaledb-2-postgresql-15") == "hi 2.28.3~debian13"
    assert mirror.install().stdout.count("\n  ") == 0  # once more: it changes nothing
    assert not [name for name in mirror.directory.iterdir() if set(name.name) - set(SAFE)]


def absent(tool: str) -> None:
    message = f"the bootstrap is tested with {tool}, which is absent"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def test_a_file_of_keys_is_taken_only_if_it_holds_the_known_key_and_no_other(tmp_path: Path) -> None:
    if shutil.which("gpg") is None:
        absent("gpg (package gpg)")

    def gpg(*arguments: str) -> str:
        return subprocess.run(
            ["gpg", "--batch", "--quiet", *arguments], env=os.environ | {"GNUPGHOME": home}, capture_output=True, text=True, check=True
        ).stdout

    def holds_only(file: Path, fingerprint: str) -> bool:
        script = f'source {BOOTSTRAP / "packages.sh"}; holds_only_key "$1" "$2"'
        return subprocess.run(["bash", "-c", script, "-", file, fingerprint], env=os.environ | {"GNUPGHOME": home}).returncode == 0

    with tempfile.TemporaryDirectory(prefix="btc-keys-") as home:  # a short path: gpg's agent listens below it
        for key in ("known@btc.test", "second@btc.test"):
            gpg("--passphrase", "", "--quick-generate-key", key, "ed25519", "sign")
        listed = gpg("--list-keys", "--with-colons")
        known, second = [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]
        gpg("--passphrase", "", "--quick-add-key", known, "ed25519", "sign")  # a subkey is not another key
        files = {name: tmp_path / name for name in ("known", "both", "armored", "none")}
        for name, keys, armor in (("known", [known], []), ("both", [known, second], []), ("armored", [known, second], ["--armor"])):
            gpg(*armor, "--output", str(files[name]), "--export", *keys)
        files["none"].write_text("<html>not found</html>")
        subprocess.run(["gpgconf", "--kill", "all"], env=os.environ | {"GNUPGHOME": home}, check=True)
        assert holds_only(files["known"], known) and not holds_only(files["known"], second)
        assert not any(holds_only(files[name], fingerprint) for name in ("both", "armored", "none") for fingerprint in (known, second))
