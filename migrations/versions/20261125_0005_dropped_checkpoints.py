"""dropped and damaged checkpoints

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('checkpoints', sa.Column('damaged_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('checkpoints', sa.Column('dropped_at', sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        'ix_checkpoints_dropped_at', 'checkpoints', ['dropped_at'], postgresql_where=sa.text('dropped_at is not null')
    )


def downgrade() -> None:
    # Whoever does not know of them would show them, and go on from them.
    op.execute('delete from checkpoints where dropped_at is not null or damaged_at is not null')
    op.drop_index('ix_checkpoints_dropped_at', table_name='checkpoints')
    op.drop_column('checkpoints', 'dropped_at')
    op.drop_column('checkpoints', 'damaged_at')
