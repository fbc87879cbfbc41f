"""how long tries ran

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('attempts', sa.Column('ran_s', sa.Float(), server_default='0', nullable=False))


def downgrade() -> None:
    op.drop_column('attempts', 'ran_s')
