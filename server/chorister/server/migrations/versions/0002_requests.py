"""Which request used a token: it alone gets its answer again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; tokens that were used before answer no request again."""
    op.add_column("tokens", sa.Column("request_sha256", sa.String(64)))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("tokens", "request_sha256")
