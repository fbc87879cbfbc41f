"""usage: what accelerator was held, how much of a try is kept, and an index over time

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None

# Which checkpoint a try went on from is known, and when it was stored: from its event, as its row may be gone.
_KEPT = """
update attempts kept set kept_until = stored.created_at
from attempts later join events stored
  on stored.job_id = later.job_id and stored.type = 'checkpoint'
 and stored.data->>'checkpoint' = later.resume_from
where kept.job_id = later.job_id and kept.number < later.number
  and stored.created_at between kept.created_at and coalesce(kept.ended_at, stored.created_at)
"""
# Shards that a feature extraction has stored.
_SHARDS = """
update attempts kept set kept_until = stored.last
from (select attempt_id, max(created_at) as last from artifacts group by attempt_id) stored
where kept.id = stored.attempt_id and kept.job_id in (select id from jobs where kind = 'feature_extraction')
"""


def upgrade() -> None:
    op.add_column('attempts', sa.Column('kept_until', sa.DateTime(timezone=True), nullable=True))
    op.add_column('allocations', sa.Column('accelerator', sa.Text(), nullable=True))
    op.execute('update allocations set accelerator = nodes.accelerator from nodes where nodes.id = node_id')
    op.alter_column('allocations', 'accelerator', nullable=False)
    op.create_index(
        'ix_allocations_ended_at', 'allocations', ['ended_at', 'claimed_at'], unique=False,
        postgresql_where=sa.text('ended_at is not null'),
    )
    op.execute(_KEPT)
    op.execute(_SHARDS)


def downgrade() -> None:
    op.drop_index(
        'ix_allocations_ended_at', table_name='allocations', postgresql_where=sa.text('ended_at is not null')
    )
    op.drop_column('allocations', 'accelerator')
    op.drop_column('attempts', 'kept_until')
