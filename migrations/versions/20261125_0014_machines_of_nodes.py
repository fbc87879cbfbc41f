"""On which machine a node is

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0014'
down_revision = '0013'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('nodes', sa.Column('machine', sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column('nodes', 'machine')
