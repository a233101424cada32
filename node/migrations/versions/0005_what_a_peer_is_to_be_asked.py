"""What a peer is still to be asked about a study"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("earlier_lookups", sa.Column("wanted_at", sa.String(), nullable=True))
    op.create_index(op.f("ix_earlier_lookups_wanted_at"), "earlier_lookups", ["wanted_at"], unique=False)
    op.execute("UPDATE earlier_lookups SET wanted_at = asked_at WHERE reason <> ''")
    op.drop_index(op.f("ix_earlier_lookups_reason"), table_name="earlier_lookups")
