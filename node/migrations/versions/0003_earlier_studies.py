"""What a study tells of the patient's later ones, and what peers said when they were asked"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("study_description", sa.String(), nullable=True))
    op.add_column("studies", sa.Column("modalities", sa.String(), nullable=True))
    op.add_column("studies", sa.Column("tag_rule_time_point", sa.String(), nullable=True))
    op.create_table(
        "earlier_lookups",
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("question", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("found", sa.JSON(), nullable=False),
        sa.Column("asked_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["study_uid"], ["studies.study_uid"], name=op.f("fk_earlier_lookups_study_uid")),
        sa.PrimaryKeyConstraint("study_uid", "peer", name=op.f("pk_earlier_lookups")),
    )
    op.create_index(op.f("ix_earlier_lookups_reason"), "earlier_lookups", ["reason"], unique=False)
