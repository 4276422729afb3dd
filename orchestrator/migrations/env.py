"""What Alembic runs: the revisions that it chose, in the transaction of whoever called it."""

from __future__ import annotations

from alembic import context

# Transactional everywhere: on SQLite, too, where we begin transactions ourselves.
context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
