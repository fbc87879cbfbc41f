"""teams and keys that end

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0008'
down_revision = '0007'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column('teams', sa.Column('deleted_at', sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f('uq_teams_name'), 'teams', type_='unique')
    op.create_index('uq_teams_name', 'teams', ['name'], unique=True, postgresql_where=sa.text('deleted_at is null'))
    op.add_column('api_keys', sa.Column('expires_at', sa.DateTime(timezone=True), nullable=True))
    op.add_column('api_keys', sa.Column('last_used_at', sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # A key that has expired would be good again, and a deleted team's name may be taken by now.
    op.execute("update api_keys set revoked_at = expires_at where revoked_at is null and expires_at is not null")
    op.execute("update teams set name = name || ' ' || id where deleted_at is not null")
    op.drop_column('api_keys', 'last_used_at')
    op.drop_column('api_keys', 'expires_at')
    op.drop_index('uq_teams_name', table_name='teams')
    op.create_unique_constraint(op.f('uq_teams_name'), 'teams', ['name'])
    op.drop_column('teams', 'deleted_at')
