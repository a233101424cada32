"""The database's tables (SQLAlchemy Core). Changed together with a new revision in node/migrations/versions.

Times are UTC in ISO 8601 with milliseconds, so that text order is time order. Who a patient is stands in
`patients` and nowhere else; every other table knows the minted `patient_key`.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

REVISION = "0005"
"""The newest revision of node/migrations: the schema that this code reads and writes."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

patients = Table(
    "patients",
    metadata,
    Column("patient_key", String, primary_key=True),
    Column("patient_id", String, nullable=False),
    Column("issuer", String, nullable=False),
    Column("name", String, nullable=False),
    UniqueConstraint("patient_id", "issuer"),
)

studies = Table(
    "studies",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("spool_key", String, nullable=False),
    Column("patient_key", ForeignKey("patients.patient_key"), nullable=False, index=True),
    Column("study_date", String),
    Column("called_ae", String),
    Column("calling_ae", String),
    Column("operator_time_point", String),
    Column("study_description", String),
    Column("modalities", String),
    Column("tag_rule_time_point", String),
    Column("first_instance_at", String, nullable=False),
    Column("last_instance_at", String, nullable=False),
    # when a decision must be made again though nothing came: a route's patience for its other roles ends
    Column("look_again_at", String, index=True),
    # where its images lie; None in rows of before that was written
    Column("spool_id", String),
)

earlier_lookups = Table(
    "earlier_lookups",
    metadata,
    Column("study_uid", ForeignKey("studies.study_uid"), primary_key=True),
    Column("peer", String, primary_key=True),
    Column("question", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("found", JSON, nullable=False),
    Column("asked_at", String, nullable=False),
    # since when the peer is to be asked; None where it is not
    Column("wanted_at", String, index=True),
)

series = Table(
    "series",
    metadata,
    Column("marker", String, primary_key=True),
    Column("study_uid", ForeignKey("studies.study_uid"), nullable=False, index=True),
    Column("series_uid", String, nullable=False),
    Column("generation", String, nullable=False),
    Column("instance_count", Integer, nullable=False),
    Column("decision", String),
    Column("condition", String),
    Column("confirmed_condition", String),
    Column("reason", String, nullable=False),
    Column("explanation", JSON, nullable=False),
    Column("updated_at", String, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("content_key", String, nullable=False, index=True),
    Column("run", Integer, nullable=False),
    Column("spool_id", String, nullable=False),
    Column("study_uid", String, nullable=False, index=True),
    Column("condition", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("order_json", JSON, nullable=False),
    Column("bundle", String, nullable=False),
    Column("bundle_sha256", String, nullable=False),
    Column("pipeline_version", String, nullable=False),
    Column("is_demo", Boolean, nullable=False),
    Column("generation", String, nullable=False),
    Column("predecessor_job_id", ForeignKey("jobs.job_id")),
    Column("summary", JSON, nullable=False),
    Column("created_at", String, nullable=False, index=True),
    Column("updated_at", String, nullable=False),
    UniqueConstraint("content_key", "run"),
    Index("ix_jobs_spool_id_state", "spool_id", "state"),
)

job_events = Table(
    "job_events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False, index=True),
    Column("at", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
)

objects = Table(
    "objects",
    metadata,
    Column("sop_instance_uid", String, primary_key=True),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False, index=True),
    Column("position", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("sop_class_uid", String, nullable=False),
    Column("path", String, nullable=False),
    Column("sha256", String, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("job_id", ForeignKey("jobs.job_id"), primary_key=True),
    Column("peer", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("rounds", Integer, nullable=False),
    Column("pending_uids", JSON),
    Column("first_attempt_at", String),
    Column("next_attempt_at", String),
    Column("reason", String, nullable=False),
    Column("updated_at", String, nullable=False),
    Index("ix_deliveries_state_next_attempt_at", "state", "next_attempt_at"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("peer", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("at", String, nullable=False),
    Column("is_stored", Boolean, nullable=False),
    Column("retry", Boolean, nullable=False),
    Column("reason", String, nullable=False),
    Column("statuses", JSON, nullable=False),
    Column("stored", JSON, nullable=False),
    ForeignKeyConstraint(["job_id", "peer"], ["deliveries.job_id", "deliveries.peer"]),
    Index("ix_receipts_peer_at", "peer", "at"),
)

commitments = Table(
    "commitments",
    metadata,
    Column("transaction_uid", String, primary_key=True),
    Column("job_id", String, nullable=False),
    Column("peer", String, nullable=False),
    Column("requested_uids", JSON, nullable=False),
    Column("committed_uids", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("requested_at", String),
    Column("next_request_at", String),
    Column("deadline_at", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String, nullable=False),
    ForeignKeyConstraint(["job_id", "peer"], ["deliveries.job_id", "deliveries.peer"]),
    Index("ix_commitments_job_id_peer", "job_id", "peer"),
    Index("ix_commitments_state_deadline_at", "state", "deadline_at"),
)

lesions = Table(
    "lesions",
    metadata,
    Column("job_id", ForeignKey("jobs.job_id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("tracking_uid", String, nullable=False),
    Column("tracking_id", String, nullable=False),
    Column("patient_key", ForeignKey("patients.patient_key"), nullable=False),
    Column("study_uid", String, nullable=False),
    Column("minted_at", String, nullable=False),
    UniqueConstraint("job_id", "tracking_uid"),
    Index("ix_lesions_patient_key", "patient_key"),
)

therapies = Table(
    "therapies",
    metadata,
    Column("therapy_id", Integer, primary_key=True, autoincrement=True),
    Column("patient_key", ForeignKey("patients.patient_key"), nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("start_date", String, nullable=False),
    Column("end_date", String),
    Column("surgery_date", String),
    Column("source", String, nullable=False),
    Column("entered_at", String, nullable=False),
)

result_series_numbers = Table(
    "result_series_numbers",
    metadata,
    Column("study_uid", String, primary_key=True),
    Column("slot", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.job_id"), nullable=False, unique=True),
)
