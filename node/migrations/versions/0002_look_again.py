"""When a study is to be decided again though nothing came"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("look_again_at", sa.String(), nullable=True))
    op.create_index(op.f("ix_studies_look_again_at"), "studies", ["look_again_at"], unique=False)
