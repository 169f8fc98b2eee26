"""The authority's books, on SQLite and on PostgreSQL where that can be started."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from chorister.server.authority import TOKEN_LIFE_S, Authority
from chorister.server.authority_db import HEAD, METADATA, Books
from chorister.shared.enrolment import EnrolmentToken, PossessionProof
from chorister.shared.errors import BadMessage, BadSignature, UsageError
from chorister.shared.randomness import SystemRandomness
from chorister.shared.signing import SigningKey

RANDOMNESS = SystemRandomness()
AUTHORITY = SigningKey(bytes(range(32)))
DEVICE = SigningKey(bytes(range(1, 33)))
STRANGER = SigningKey(bytes(range(2, 34)))


def _postgres_tools() -> Path | None:
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists()), None)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL of our own, on a socket in a folder."""
    pytest.importorskip("psycopg")
    tools = _postgres_tools()
    if tools is None:
        pytest.skip("PostgreSQL is not installed")
    # PostgreSQL refuses to run as root: then as the user that its package made.
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user and subprocess.run([*as_user, "true"], check=False, capture_output=True).returncode:
        pytest.skip("there is no user postgres to run it as")
    # Not below pytest's own folder, which is closed to that user.
    with tempfile.TemporaryDirectory(prefix="chorister-postgres-") as name:
        if as_user:
            shutil.chown(name, "postgres")
        yield from _serve(tools, as_user, Path(name))


def _serve(tools: Path, as_user: list[str], folder: Path) -> Iterator[str]:
    data = folder / "data"

    def run(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, cwd="/")

    run(str(tools / "initdb"), "-D", str(data), "-U", "tests", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    run(str(tools / "pg_ctl"), "-D", str(data), "-w", "-o", options, "-l", str(data / "log"),
        "start")  # fmt: skip
    try:
        yield f"postgresql+psycopg://tests@/{{}}?host={folder}"
    finally:
        run(str(tools / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")


_numbers = iter(range(1000))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/authority.db"
    address: str = request.getfixturevalue("postgres")
    name = f"books{next(_numbers)}"
    engine = sa.create_engine(address.format("postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return address.format(name)


@pytest.fixture
def authority(url: str) -> Authority:
    return Authority(url, AUTHORITY, "choir")


def enrolled(authority, key=DEVICE):
    token = authority.token(RANDOMNESS, 100)
    proof = PossessionProof.make(key, "choir", token.challenge)
    return authority.issue(proof, now_s=100, life_s=1_000)


def test_a_device_that_does_not_hold_its_key_gets_no_certificate(authority):
    challenge = authority.token(RANDOMNESS, 100).challenge
    forged = PossessionProof.make(STRANGER, "choir", challenge)
    forged = PossessionProof(DEVICE.verify_key(), "choir", challenge, forged.signature)
    with pytest.raises(BadSignature, match="proof of possession"):
        authority.issue(forged, now_s=100, life_s=1_000)
    assert authority.devices() == ()
    assert authority.tokens()[0].used_s is None


def test_a_token_is_good_once_and_for_a_day_and_only_if_the_authority_made_it(authority):
    token = authority.token(RANDOMNESS, 100)
    late = PossessionProof.make(DEVICE, "choir", token.challenge)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(late, now_s=101 + TOKEN_LIFE_S, life_s=1_000)
    authority.issue(late, now_s=100 + TOKEN_LIFE_S, life_s=1_000)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(late, now_s=101, life_s=1_000)
    other = PossessionProof.make(STRANGER, "choir", token.challenge)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(other, now_s=101, life_s=1_000)
    with pytest.raises(BadSignature, match="used, expired or unknown"):
        authority.issue(
            PossessionProof.make(DEVICE, "choir", bytes(32)), now_s=101, life_s=1_000
        )  # fmt: skip
    (used,) = authority.tokens()
    assert (used.used_s, used.device_id) == (100 + TOKEN_LIFE_S, DEVICE.verify_key().name)


def test_of_devices_that_come_with_one_token_at_once_one_is_enrolled(authority, url):
    token = authority.token(RANDOMNESS, 100)
    outcomes = []

    def come(number):
        key = SigningKey(bytes([number]) * 32)
        proof = PossessionProof.make(key, "choir", token.challenge)
        try:
            Authority(url, AUTHORITY, "choir").issue(proof, now_s=101, life_s=10)
            outcomes.append("enrolled")
        except BadSignature:
            outcomes.append("refused")

    threads = [threading.Thread(target=come, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["enrolled", "refused", "refused", "refused"]
    assert len(authority.devices()) == 1


def test_a_proof_for_another_federation_is_refused_and_the_token_stays(authority):
    token = authority.token(RANDOMNESS, 100)
    proof = PossessionProof.make(DEVICE, "other", token.challenge)
    with pytest.raises(BadSignature, match="enrols for 'choir'"):
        authority.issue(proof, now_s=100, life_s=1_000)
    authority.issue(
        PossessionProof.make(DEVICE, "choir", token.challenge), now_s=100, life_s=1_000
    )  # fmt: skip


def test_the_certificate_is_the_authoritys_and_names_no_one(authority):
    certificate = enrolled(authority)
    certificate.check(AUTHORITY.verify_key(), "choir", 1_100)
    assert certificate.device_id == DEVICE.verify_key().name
    with pytest.raises(BadSignature):
        certificate.check(STRANGER.verify_key(), "choir", 1_100)
    with pytest.raises(BadSignature, match="has not ended"):
        certificate.check(AUTHORITY.verify_key(), "choir", 1_101)


def test_a_revoked_device_stays_revoked_and_gets_no_new_certificate(authority, url):
    device_id = enrolled(authority).device_id
    authority.revoke(device_id, now_s=200)
    authority.revoke(device_id, now_s=300)
    reopened = Authority(url, AUTHORITY, "choir")
    assert reopened.revoked() == {device_id}
    assert reopened.devices()[0].revoked_s == 200
    with pytest.raises(BadSignature, match="revoked at 200"):
        enrolled(reopened)
    # What was refused used nothing up.
    assert {token.used_s for token in reopened.tokens()} == {None, 100}


def test_only_known_devices_can_be_revoked(authority):
    with pytest.raises(UsageError, match="authority list"):
        authority.revoke("f" * 16, now_s=1)


def test_a_new_certificate_for_a_known_device_lasts_longer(authority):
    enrolled(authority)
    token = authority.token(RANDOMNESS, 500)
    proof = PossessionProof.make(DEVICE, "choir", token.challenge)
    authority.issue(proof, now_s=500, life_s=1_000)
    (device,) = authority.devices()
    assert (device.enrolled_s, device.not_after_s) == (100, 1_500)


def test_nothing_lasts_no_time(authority):
    with pytest.raises(UsageError, match="more than 0 s"):
        authority.token(RANDOMNESS, 1, life_s=0)
    proof = PossessionProof.make(DEVICE, "choir", authority.token(RANDOMNESS, 1).challenge)
    with pytest.raises(UsageError, match="more than 0 s"):
        authority.issue(proof, now_s=1, life_s=0)


def test_a_database_is_one_authoritys(authority, url):
    with pytest.raises(UsageError, match="database of its own"):
        Authority(url, AUTHORITY, "other")
    with pytest.raises(UsageError, match="database of its own"):
        Authority(url, STRANGER, "choir")


def test_the_books_hold_no_secret(authority, url):
    token = authority.token(RANDOMNESS, 100)
    enrolled(authority)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = [str(list(connection.execute(sa.select(t)))) for t in METADATA.sorted_tables]
    engine.dispose()
    for secret in (AUTHORITY.secret_bytes(), DEVICE.secret_bytes(), token.challenge):
        assert secret.hex() not in "".join(rows)


def test_the_migrations_make_the_tables_that_the_code_names(url):
    Books(url)
    Books(url)
    engine = sa.create_engine(url)
    found = sa.inspect(engine)
    assert set(found.get_table_names()) == {*METADATA.tables, "alembic_version"}
    for table in METADATA.sorted_tables:
        columns = {
            c["name"]: (str(c["type"]), c["nullable"]) for c in found.get_columns(table.name)
        }
        assert columns == {
            c.name: (str(c.type.compile(engine.dialect)), bool(c.nullable)) for c in table.columns
        }
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == (
            HEAD
        )
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UsageError, match="of version 9999"):
        Books(url)


def test_books_of_the_first_version_are_taken_over(url):
    engine = sa.create_engine(url)
    Books(url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE tokens DROP COLUMN request_sha256"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()
    assert enrolled(Authority(url, AUTHORITY, "choir")).device_id == DEVICE.verify_key().name


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "oracle+none://x", "sqlite:////nowhere/at/all.db",
     "postgresql+psycopg://u:hush@127.0.0.1:1/none"],
)  # fmt: skip
def test_an_address_that_leads_nowhere_is_said_without_its_password(address):
    with pytest.raises(UsageError, match="authority's database") as refusal:
        Books(address)
    assert "hush" not in str(refusal.value)


def test_a_token_survives_a_line_and_nothing_else_is_one():
    token = EnrolmentToken("choir", AUTHORITY.verify_key(), bytes(range(32)), 5)
    assert EnrolmentToken.from_text(f"  {token.to_text()}\n") == token
    assert bytes(range(32)).hex() not in repr(token)
    for text in ("", "chorister-token-1.", token.to_text()[:-3], token.to_text()[5:], "é" * 40):
        with pytest.raises(BadMessage, match="one line that begins with"):
            EnrolmentToken.from_text(text)


def test_a_proof_survives_its_bytes():
    proof = PossessionProof.make(DEVICE, "choir", bytes(32))
    PossessionProof.from_bytes(proof.to_bytes()).check()
    with pytest.raises(BadMessage):
        PossessionProof.from_bytes(proof.to_bytes()[:-1])
