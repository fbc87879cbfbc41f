"""indexes for what the scheduler looks for all the time, and as a rule does not find

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0015'
down_revision = '0014'
branch_labels = None
depends_on = None

_NAMED_BY = ('base_job_id', 'training_file_id', 'validation_file_id', 'weights_file_id')


def upgrade() -> None:
    for column in _NAMED_BY:
        _index_again(column, 'finished_at')
    op.create_index(
        'ix_jobs_unfinished', 'jobs', ['team_id'], postgresql_where=sa.text('finished_at is null')
    )
    op.create_index(
        'ix_jobs_deleted',
        'jobs',
        ['team_id', 'id'],
        postgresql_where=sa.text('deleted_at is not null and erased_at is null'),
    )
    op.create_index(
        'ix_files_there', 'files', ['team_id', 'created_at'], postgresql_where=sa.text('deleted_at is null')
    )


def downgrade() -> None:
    op.drop_index('ix_files_there', table_name='files')
    op.drop_index('ix_jobs_deleted', table_name='jobs')
    op.drop_index('ix_jobs_unfinished', table_name='jobs')
    for column in _NAMED_BY:
        _index_again(column)


def _index_again(column: str, *more: str) -> None:
    name = f'ix_jobs_{column}'
    op.drop_index(name, table_name='jobs')
    # Every job has a training file.
    where = None if column == 'training_file_id' else sa.text(f'{column} is not null')
    op.create_index(name, 'jobs', [column, *more], postgresql_where=where)
