"""GPUs that are not fit for work

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0013'
down_revision = '0012'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('slots', sa.Column('unhealthy_reason', sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column('slots', 'unhealthy_reason')
