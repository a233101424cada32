"""In which spool a study's images lie"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("studies", sa.Column("spool_id", sa.String(), nullable=True))
    op.execute(
        "UPDATE studies SET spool_id ="
        " (SELECT jobs.spool_id FROM jobs WHERE jobs.study_uid = studies.study_uid ORDER BY created_at DESC LIMIT 1)"
    )
