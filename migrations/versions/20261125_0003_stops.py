"""pausing, preempting, draining

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    changes = postgresql.JSONB(astext_type=sa.Text())
    op.add_column('jobs', sa.Column('changes', changes, server_default=sa.text("'[]'"), nullable=False))
    op.add_column('jobs', sa.Column('preempted_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('nodes', sa.Column('drained_by', sa.Text(), nullable=True))
    op.add_column('nodes', sa.Column('drained_at', sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(op.f('ck_nodes_drained'), 'nodes', '(drained_at is null) = (drained_by is null)')


def downgrade() -> None:
    op.drop_constraint(op.f('ck_nodes_drained'), 'nodes')
    op.drop_column('nodes', 'drained_at')
    op.drop_column('nodes', 'drained_by')
    op.drop_column('jobs', 'preempted_at')
    op.drop_column('jobs', 'changes')
