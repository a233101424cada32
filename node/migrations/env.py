"""Alembic's entry: run the revisions on the connection, and in the transaction, that node/database.py opened."""

from alembic import context

from node.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
