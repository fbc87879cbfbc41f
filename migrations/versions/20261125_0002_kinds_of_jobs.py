"""kinds of jobs

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    kinds = sa.Enum('fine_tuning', 'feature_extraction', name='job_kind', native_enum=False, create_constraint=True, length=32)
    op.add_column('jobs', sa.Column('kind', kinds, server_default='fine_tuning', nullable=False))
    op.alter_column('jobs', 'freeze_plan', nullable=True)
    op.create_check_constraint(
        op.f('ck_jobs_freeze_plan_of_kind'), 'jobs', "(kind = 'fine_tuning') = (freeze_plan is not null)"
    )


def downgrade() -> None:
    op.drop_constraint(op.f('ck_jobs_freeze_plan_of_kind'), 'jobs')
    # What is left could not run a job of any other kind.
    op.execute("update jobs set freeze_plan = '{}' where freeze_plan is null")
    op.alter_column('jobs', 'freeze_plan', nullable=False)
    op.drop_column('jobs', 'kind')
