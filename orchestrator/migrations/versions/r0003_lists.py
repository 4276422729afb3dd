"""Lists of the audit and of decisions, whoever's they are, and the audit of a run are found in indexes."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the indexes."""
    op.create_index("audit_at", "audit", ["at", "id"])
    op.create_index("audit_target", "audit", ["target"])
    op.create_index("decision_at", "decision", ["at", "run_id", "number"])


def downgrade() -> None:
    """Take them away again."""
    op.drop_index("decision_at", "decision")
    op.drop_index("audit_target", "audit")
    op.drop_index("audit_at", "audit")
