"""The authority's books: SQLite in a file, or PostgreSQL by its address; migrated when opened.

Nothing in them is a secret or a person: digests of tokens, pseudonyms, public keys, times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from chorister.shared.errors import UsageError

MIGRATIONS = Path(__file__).with_name("migrations")
HEAD = "0002"
_BUSY_S = 60

METADATA = sa.MetaData()
AUTHORITY = sa.Table(
    "authority",
    METADATA,
    sa.Column("federation", sa.String(64), primary_key=True),
    sa.Column("authority_key", sa.String(64), nullable=False),
)
TOKENS = sa.Table(
    "tokens",
    METADATA,
    sa.Column("challenge_sha256", sa.String(64), primary_key=True),
    sa.Column("expires_s", sa.BigInteger, nullable=False),
    sa.Column("used_s", sa.BigInteger),
    sa.Column("device_id", sa.String(16)),
    sa.Column("request_sha256", sa.String(64)),
)
DEVICES = sa.Table(
    "devices",
    METADATA,
    sa.Column("device_id", sa.String(16), primary_key=True),
    sa.Column("device_key", sa.String(64), nullable=False),
    sa.Column("enrolled_s", sa.BigInteger, nullable=False),
    sa.Column("not_after_s", sa.BigInteger, nullable=False),
    sa.Column("revoked_s", sa.BigInteger),
)


class Books:
    """A database that has this version's tables.

    Args:
        url: 'sqlite:///PATH' or 'postgresql+psycopg://USER:PASSWORD@HOST/NAME'.

    Raises:
        UsageError: no such database, no driver for it, or a newer version made its tables.
    """

    def __init__(self, url: str) -> None:
        try:
            address = sa.make_url(url)
            self.name = address.render_as_string(hide_password=True)
            wait = {"timeout": _BUSY_S} if address.get_backend_name() == "sqlite" else {}
            self._engine = sa.create_engine(address, poolclass=NullPool, connect_args=wait)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise UsageError(
                "The authority's database is sqlite:///PATH or postgresql+psycopg://...",
                f"an address that cannot be used ({type(error).__name__}: {error})"[:200],
                "Correct it; PostgreSQL needs chorister[postgresql].",
            ) from None
        self._migrate()

    @contextmanager
    def change(self) -> Iterator[sa.Connection]:
        """Give a connection in one transaction: all of a block or nothing of it.

        Raises:
            UsageError: the database cannot be reached, or refuses.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise UsageError(
                "The authority's database can be used.",
                f"{self.name}: {str(error.orig).splitlines()[0] if error.orig else error}"[:200],
                "Check its address, its server and your permissions; nothing was changed.",
            ) from None

    def _migrate(self) -> None:
        with self.change() as connection:
            if connection.dialect.name == "postgresql":
                # Two processes that open a new database at once migrate it one after the other.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(5)"))
            found = _version(connection)
            if found == HEAD:
                return
            # Loaded here: a database that is up to date needs none of it.
            from alembic import command
            from alembic.config import Config
            from alembic.util import CommandError

            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise UsageError(
                    "The authority's database is of this version, or older.",
                    f"{self.name} of version {found}: {error}"[:200],
                    "Open it with the version of Chorister that made it.",
                ) from None


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
