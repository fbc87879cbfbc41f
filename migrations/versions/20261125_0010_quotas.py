"""quotas and limits of teams

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0010'
down_revision = '0009'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        'team_limits',
        sa.Column('team_id', sa.Text(), nullable=False),
        sa.Column('weight', sa.Float(), server_default='1', nullable=False),
        sa.Column('max_queued_jobs', sa.Integer(), nullable=True),
        sa.Column('max_storage_bytes', sa.BigInteger(), nullable=True),
        sa.Column('max_duration_s', sa.Integer(), nullable=True),
        sa.Column('max_devices', sa.Integer(), nullable=True),
        sa.Column('accelerators', sa.ARRAY(sa.Text()), nullable=True),
        sa.CheckConstraint('weight > 0', name=op.f('ck_team_limits_weight')),
        sa.ForeignKeyConstraint(['team_id'], ['teams.id'], name=op.f('fk_team_limits_team_id')),
        sa.PrimaryKeyConstraint('team_id', name=op.f('pk_team_limits')),
    )
    op.create_table(
        'team_quotas',
        sa.Column('team_id', sa.Text(), nullable=False),
        sa.Column('accelerator', sa.Text(), nullable=False),
        sa.Column('nominal_quota', sa.Integer(), nullable=False),
        sa.Column('borrowing_limit', sa.Integer(), nullable=True),
        sa.Column('lending_limit', sa.Integer(), nullable=True),
        sa.CheckConstraint('borrowing_limit >= 0', name=op.f('ck_team_quotas_borrowing_limit')),
        sa.CheckConstraint(
            'lending_limit between 0 and nominal_quota', name=op.f('ck_team_quotas_lending_limit')
        ),
        sa.CheckConstraint('nominal_quota >= 0', name=op.f('ck_team_quotas_nominal_quota')),
        sa.ForeignKeyConstraint(['team_id'], ['teams.id'], name=op.f('fk_team_quotas_team_id')),
        sa.PrimaryKeyConstraint('team_id', 'accelerator', name=op.f('pk_team_quotas')),
    )


def downgrade() -> None:
    op.drop_table('team_quotas')
    op.drop_table('team_limits')
