"""The bootstrap script makes a host: run for real on a Debian 13 of its own, with Debian's PostgreSQL 17, pgvector and pgBackRest.

TimescaleDB's packages are not Debian's, so it runs with --without-timescaledb; how they are chosen, pinned and verified is tested
with stand-ins from a signed mirror.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest

from btc_assets.slices import SLICE
from btc_assets_tests.databases import write_ticks
from btc_assets_tests.hosts import OTHER_ADDRESS, PROJECT, SCRIPT, SECRETS, Host
from btc_assets_tests.trades import every

pytestmark = pytest.mark.xdist_group("host")

BOOTSTRAP = PROJECT / "terraform/bootstrap"
STATE = ("/etc/postgresql", "/etc/postgresql-common", "/etc/pgbackrest.conf", "/etc/btc-assets", "/etc/sudoers.d", "/etc/systemd/system",
         "/etc/apt", "/etc/fstab", "/var/lib/postgresql/tls")  # fmt: skip
ROLES = ("btc_owner", "btc_loader", "btc_reader")


def test_every_step_of_the_first_run_is_done(host: Host) -> None:
    assert "applied" in host.outputs[0] and "took the first full backup" in host.outputs[0]
    assert host.run("findmnt", "-no", "SOURCE,FSTYPE", "/var/lib/postgresql").stdout.split() == [host.device, "ext4"]
    with host.connect("btc_owner") as connection:
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
    # The units' own way: the user btc, by the local socket, with the sudo rule for pgBackRest.
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
        connection.execute("DROP TABLE market_data.btc_ticks CASCADE")  # it is the rights that forbid it, nothing else


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
    # Nor is anybody a superuser but the operating system's user postgres.
    assert "Peer authentication failed" in enter("postgres", "btc").stderr
    assert "Peer authentication failed" in host.run("psql", "-U", "btc_owner", "btc", check=False).stderr


@pytest.mark.parametrize("role", ROLES)
def test_from_outside_a_role_needs_tls_its_password_and_an_allowed_network(host: Host, role: str) -> None:
    with host.connect(role) as connection:
        assert connection.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == ("TLSv1.3",)
    with pytest.raises(psycopg.OperationalError, match="pg_hba.conf rejects connection .* no encryption"):
        host.connect(role, sslmode="disable")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        host.connect(role, password="another-password")
    with pytest.raises(psycopg.OperationalError, match="pg_hba.conf rejects connection"):
        host.connect(role, OTHER_ADDRESS)
    with pytest.raises(psycopg.OperationalError, match="pg_hba.conf rejects connection"):
        host.connect(role, database="dagster")


@pytest.mark.parametrize("role", ["postgres", "btc_dagster"])
def test_superuser_and_dagster_are_refused_from_outside(host: Host, role: str) -> None:
    for database in ("btc", "dagster", "postgres"):
        with pytest.raises(psycopg.OperationalError, match="pg_hba.conf rejects connection"):
            host.connect(role, database=database)


def test_no_secret_gets_into_log_process_list_or_output(host: Host) -> None:
    assert host.s3 is not None
    with host.connect("btc_owner") as connection, pytest.raises(psycopg.errors.UndefinedObject):
        connection.execute("ALTER ROLE nobody PASSWORD 'a-slip-of-the-pen'")
    log = (host.root / "var/log/postgresql/postgresql-17-main.log").read_bytes()
    assert b'role "nobody" does not exist' in log
    assert any(SCRIPT.encode() in line for line in host.command_lines)  # it was looked at
    for secret in (*SECRETS.values(), host.s3.secret, "a-slip-of-the-pen"):
        assert secret.encode() not in log
        assert not [line for line in host.command_lines if secret.encode() in line]
        assert not [output for output in host.outputs if secret in output]
    # Where they have to lie, others cannot read them.
    holders = host.run("grep", "-rlE", "|".join((*SECRETS.values(), host.s3.secret)), "/etc", "/var/lib/btc-assets", "/var/log", "/run", check=False)
    assert holders.stdout.split() == ["/etc/pgbackrest.conf"]
    assert host.run("stat", "-c", "%a %U %G", "/etc/pgbackrest.conf").stdout == "640 root postgres\n"


def test_the_user_btc_can_ask_pgbackrest_but_not_command_it(host: Host) -> None:
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
    host.run("sh", "-c", "rm -rf /etc/postgresql/17 /etc/pgbackrest.conf /etc/btc-assets /etc/sudoers.d/btc-assets /etc/systemd/system/btc-*; userdel btc")
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
        done = host.set_up(*options, secrets={}, **aws)
    assert "CREATE" not in done.stdout and "made /var/lib/postgresql/17/main" not in done.stdout and "up to date" in done.stdout
    assert re.findall("set the password of (.*)", done.stdout) == ["btc_loader"]
    assert not [line for line in host.command_lines if b"changed-in-the-store" in line]
    with host.connect("btc_loader", password="changed-in-the-store-0123") as connection:
        assert connection.execute("SELECT count(*), sum(price) FROM market_data.btc_ticks").fetchone() == before
    assert backups(host) == kept
    host.set_up()  # the loader's password is again what the other tests use


def test_another_major_version_than_the_volumes_is_refused(host: Host) -> None:
    with pytest.raises(AssertionError, match=r"/var/lib/postgresql/17/main is a cluster of PostgreSQL 17: name that version with --postgresql"):
        host.set_up("--postgresql", "15")


# ---- devices


@pytest.mark.parametrize(
    ("content", "message"),
    [("file system", "holds files"), ("raw data", "holds something without a file system"), ("partitions", "holds something without a file system")],
)
def test_a_device_that_holds_anything_is_never_formatted(host: Host, tmp_path: Path, content: str, message: str) -> None:
    image = tmp_path / "image"
    with loop_device(image, 16) as device:
        if content == "file system":
            subprocess.run(["mkfs.ext4", "-q", device], check=True)
        elif content == "partitions":
            subprocess.run(["sfdisk", "--quiet", device], input="type=83", text=True, check=True, capture_output=True)
        else:
            Path(device).write_bytes(b"trades" * 1000)
        before = image.read_bytes()
        script = 'source "$0" --help >/dev/null; data_device=$1 changes=(); cd /; unshare --mount bash -c true; mount_data'
        done = host.run("unshare", "--mount", "bash", "-c", script, SCRIPT, device, check=False)
        assert done.returncode != 0 and message in done.stderr
    assert image.read_bytes() == before
