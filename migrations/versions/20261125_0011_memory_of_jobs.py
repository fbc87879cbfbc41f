"""what jobs take of a GPU's memory

Jobs that wait already keep null, which no node is refused for: they were taken when an estimate refused nothing.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0011'
down_revision = '0010'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('jobs', sa.Column('memory_bytes', sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column('jobs', 'memory_bytes')
