"""teams go with all that they own, and what they keep has an end

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0012'
down_revision = '0011'
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column('deletion_asked_at', sa.DateTime(timezone=True), nullable=True),
        sa.Column('deletion_asked_by', sa.Text(), nullable=True),
        sa.Column('erased_at', sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column('teams', column)
    # Who asked for those that are gone already was not kept.
    op.execute(
        "update teams set deletion_asked_at = deleted_at, deletion_asked_by = 'unknown' "
        'where deleted_at is not null'
    )
    op.create_check_constraint(
        op.f('ck_teams_deletion'), 'teams', 'deleted_at is null or deletion_asked_at is not null'
    )
    op.create_check_constraint(
        op.f('ck_teams_deletion_asked'),
        'teams',
        '(deletion_asked_at is null) = (deletion_asked_by is null)',
    )
    op.create_check_constraint(
        op.f('ck_teams_erasure'), 'teams', 'erased_at is null or deleted_at is not null'
    )
    op.add_column('jobs', sa.Column('erased_at', sa.DateTime(timezone=True), nullable=True))
    for name in ('keep_jobs_days', 'keep_files_days'):
        op.add_column('team_limits', sa.Column(name, sa.Integer(), nullable=True))
    op.create_check_constraint(
        op.f('ck_team_limits_kept'), 'team_limits', 'keep_jobs_days > 0 and keep_files_days > 0'
    )
    op.create_index(
        'ix_jobs_team_id_finished_at',
        'jobs',
        ['team_id', 'finished_at'],
        postgresql_where=sa.text('finished_at is not null and deleted_at is null'),
    )
    op.create_index('ix_audit_entries_at', 'audit_entries', ['at'])


def downgrade() -> None:
    op.drop_index('ix_audit_entries_at', table_name='audit_entries')
    op.drop_index('ix_jobs_team_id_finished_at', table_name='jobs')
    op.drop_constraint('ck_team_limits_kept', 'team_limits')
    for name in ('keep_jobs_days', 'keep_files_days'):
        op.drop_column('team_limits', name)
    # A team that was being deleted is there again; its keys stay revoked.
    op.drop_column('jobs', 'erased_at')
    for constraint in ('ck_teams_erasure', 'ck_teams_deletion_asked', 'ck_teams_deletion'):
        op.drop_constraint(constraint, 'teams')
    for column in ('erased_at', 'deletion_asked_by', 'deletion_asked_at'):
        op.drop_column('teams', column)
