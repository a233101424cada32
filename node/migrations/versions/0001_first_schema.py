"""The first schema"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("content_key", sa.String(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("spool_id", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("condition", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("order_json", sa.JSON(), nullable=False),
        sa.Column("bundle", sa.String(), nullable=False),
        sa.Column("bundle_sha256", sa.String(), nullable=False),
        sa.Column("pipeline_version", sa.String(), nullable=False),
        sa.Column("is_demo", sa.Boolean(), nullable=False),
        sa.Column("generation", sa.String(), nullable=False),
        sa.Column("predecessor_job_id", sa.String(), nullable=True),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("updated_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["predecessor_job_id"], ["jobs.job_id"], name=op.f("fk_jobs_predecessor_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("content_key", "run", name=op.f("uq_jobs_content_key_run")),
    )
    op.create_index(op.f("ix_jobs_content_key"), "jobs", ["content_key"], unique=False)
    op.create_index(op.f("ix_jobs_created_at"), "jobs", ["created_at"], unique=False)
    op.create_index("ix_jobs_spool_id_state", "jobs", ["spool_id", "state"], unique=False)
    op.create_index(op.f("ix_jobs_study_uid"), "jobs", ["study_uid"], unique=False)
    op.create_table(
        "patients",
        sa.Column("patient_key", sa.String(), nullable=False),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("patient_key", name=op.f("pk_patients")),
        sa.UniqueConstraint("patient_id", "issuer", name=op.f("uq_patients_patient_id_issuer")),
    )
    op.create_table(
        "deliveries",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("pending_uids", sa.JSON(), nullable=True),
        sa.Column("first_attempt_at", sa.String(), nullable=True),
        sa.Column("next_attempt_at", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("updated_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_deliveries_job_id")),
        sa.PrimaryKeyConstraint("job_id", "peer", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_state_next_attempt_at", "deliveries", ["state", "next_attempt_at"], unique=False)
    op.create_table(
        "job_events",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_events_job_id")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_job_events")),
    )
    op.create_index(op.f("ix_job_events_job_id"), "job_events", ["job_id"], unique=False)
    op.create_table(
        "lesions",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("tracking_uid", sa.String(), nullable=False),
        sa.Column("tracking_id", sa.String(), nullable=False),
        sa.Column("patient_key", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("minted_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_lesions_job_id")),
        sa.ForeignKeyConstraint(["patient_key"], ["patients.patient_key"], name=op.f("fk_lesions_patient_key")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_lesions")),
        sa.UniqueConstraint("job_id", "tracking_uid", name=op.f("uq_lesions_job_id_tracking_uid")),
    )
    op.create_index("ix_lesions_patient_key", "lesions", ["patient_key"], unique=False)
    op.create_table(
        "objects",
        sa.Column("sop_instance_uid", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_objects_job_id")),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_objects")),
    )
    op.create_index(op.f("ix_objects_job_id"), "objects", ["job_id"], unique=False)
    op.create_table(
        "result_series_numbers",
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_result_series_numbers_job_id")),
        sa.PrimaryKeyConstraint("study_uid", "slot", name=op.f("pk_result_series_numbers")),
        sa.UniqueConstraint("job_id", name=op.f("uq_result_series_numbers_job_id")),
    )
    op.create_table(
        "studies",
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("spool_key", sa.String(), nullable=False),
        sa.Column("patient_key", sa.String(), nullable=False),
        sa.Column("study_date", sa.String(), nullable=True),
        sa.Column("called_ae", sa.String(), nullable=True),
        sa.Column("calling_ae", sa.String(), nullable=True),
        sa.Column("operator_time_point", sa.String(), nullable=True),
        sa.Column("first_instance_at", sa.String(), nullable=False),
        sa.Column("last_instance_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["patient_key"], ["patients.patient_key"], name=op.f("fk_studies_patient_key")),
        sa.PrimaryKeyConstraint("study_uid", name=op.f("pk_studies")),
    )
    op.create_index(op.f("ix_studies_patient_key"), "studies", ["patient_key"], unique=False)
    op.create_table(
        "therapies",
        sa.Column("therapy_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("patient_key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("start_date", sa.String(), nullable=False),
        sa.Column("end_date", sa.String(), nullable=True),
        sa.Column("surgery_date", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("entered_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["patient_key"], ["patients.patient_key"], name=op.f("fk_therapies_patient_key")),
        sa.PrimaryKeyConstraint("therapy_id", name=op.f("pk_therapies")),
    )
    op.create_index(op.f("ix_therapies_patient_key"), "therapies", ["patient_key"], unique=False)
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("requested_uids", sa.JSON(), nullable=False),
        sa.Column("committed_uids", sa.JSON(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.String(), nullable=True),
        sa.Column("next_request_at", sa.String(), nullable=True),
        sa.Column("deadline_at", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "peer"], ["deliveries.job_id", "deliveries.peer"], name=op.f("fk_commitments_job_id_peer")
        ),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitments")),
    )
    op.create_index("ix_commitments_job_id_peer", "commitments", ["job_id", "peer"], unique=False)
    op.create_index("ix_commitments_state_deadline_at", "commitments", ["state", "deadline_at"], unique=False)
    op.create_table(
        "receipts",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", sa.String(), nullable=False),
        sa.Column("is_stored", sa.Boolean(), nullable=False),
        sa.Column("retry", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("statuses", sa.JSON(), nullable=False),
        sa.Column("stored", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id", "peer"], ["deliveries.job_id", "deliveries.peer"], name=op.f("fk_receipts_job_id_peer")
        ),
        sa.PrimaryKeyConstraint("job_id", "peer", "attempt", name=op.f("pk_receipts")),
    )
    op.create_index("ix_receipts_peer_at", "receipts", ["peer", "at"], unique=False)
    op.create_table(
        "series",
        sa.Column("marker", sa.String(), nullable=False),
        sa.Column("study_uid", sa.String(), nullable=False),
        sa.Column("series_uid", sa.String(), nullable=False),
        sa.Column("generation", sa.String(), nullable=False),
        sa.Column("instance_count", sa.Integer(), nullable=False),
        sa.Column("decision", sa.String(), nullable=True),
        sa.Column("confirmed_condition", sa.String(), nullable=True),
        sa.Column("condition", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("explanation", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["study_uid"], ["studies.study_uid"], name=op.f("fk_series_study_uid")),
        sa.PrimaryKeyConstraint("marker", name=op.f("pk_series")),
    )
    op.create_index(op.f("ix_series_study_uid"), "series", ["study_uid"], unique=False)
