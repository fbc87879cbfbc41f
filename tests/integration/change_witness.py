"""What becomes of rows, written down by the database itself in the transaction that changes them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import Engine, text

from shared.db.engine import transaction

_TABLES = ("teams", "jobs", "files")
_WATCHED = ("state", "deletion_asked_at", "deleted_at", "erased_at")
_BEGIN = """
create table witnessed (seq bigserial, at timestamptz default clock_timestamp(), kind text, id text,
                        what text, became text);
create function witness() returns trigger language plpgsql as $$
declare
  before jsonb := to_jsonb(old);
  after jsonb := to_jsonb(new);
  what text;
begin
  foreach what in array tg_argv loop
    if before->what is distinct from after->what then
      insert into witnessed (kind, id, what, became) values (tg_table_name, new.id, what, after->>what);
    end if;
  end loop;
  return new;
end $$
"""
_WATCH = "create trigger witness after update on {0} for each row execute function witness({1})"
_READ = "select kind, id, what, became, at from witnessed order by seq"

Change = tuple[str, datetime]
"""What it became, and when."""


def begin_to_watch(engine: Engine) -> None:
    """From here on."""
    watched = ", ".join(f"'{name}'" for name in _WATCHED)
    with transaction(engine) as session:
        connection = session.connection()
        for statement in (_BEGIN, *(_WATCH.format(table, watched) for table in _TABLES)):
            connection.exec_driver_sql(statement)


def changes(engine: Engine) -> dict[tuple[str, str, str], list[Change]]:
    """By table, id and column, in their order."""
    found: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
    with transaction(engine) as session:
        for kind, id, what, became, at in session.execute(text(_READ)):
            found[kind, id, what].append((became, at))
    return found


def n_changes(engine: Engine) -> int:
    with transaction(engine) as session:
        return int(session.scalar(text("select count(*) from witnessed")) or 0)
