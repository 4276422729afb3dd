"""Logs of runs that are long over may leave the record; which still have one is found in an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_HAS_LOG = sa.text("logged > 0")
_OF_TASKS = sa.text("generation = 0 AND run_id <> ''")


def upgrade() -> None:
    """Add what pruning reads."""
    op.add_column("run", sa.Column("logged", sa.Integer(), nullable=False, server_default="2"))
    op.create_index("run_log", "run", ["finished_at"], sqlite_where=_HAS_LOG, postgresql_where=_HAS_LOG)
    op.create_index("chain_task", "chain", ["epoch", "seq"], sqlite_where=_OF_TASKS, postgresql_where=_OF_TASKS)
    op.create_index("request_at", "request", ["at"])


def downgrade() -> None:
    """Take it away again; a log that was pruned looks then as if somebody had removed it."""
    op.drop_index("request_at", "request")
    op.drop_index("chain_task", "chain")
    op.drop_index("run_log", "run")
    op.drop_column("run", "logged")
