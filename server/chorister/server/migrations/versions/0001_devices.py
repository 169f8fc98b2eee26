"""The authority's first tables: who it is, its tokens, its devices."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "authority",
        sa.Column("federation", sa.String(64), primary_key=True),
        sa.Column("authority_key", sa.String(64), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("challenge_sha256", sa.String(64), primary_key=True),
        sa.Column("expires_s", sa.BigInteger, nullable=False),
        sa.Column("used_s", sa.BigInteger),
        sa.Column("device_id", sa.String(16)),
    )
    op.create_table(
        "devices",
        sa.Column("device_id", sa.String(16), primary_key=True),
        sa.Column("device_key", sa.String(64), nullable=False),
        sa.Column("enrolled_s", sa.BigInteger, nullable=False),
        sa.Column("not_after_s", sa.BigInteger, nullable=False),
        sa.Column("revoked_s", sa.BigInteger),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("devices", "tokens", "authority"):
        op.drop_table(table)
