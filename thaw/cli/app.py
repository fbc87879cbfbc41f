"""Every command by its name."""

from __future__ import annotations

import typer

from thaw.cli import files, jobs, keys, models, nodes, results, stops, team_quota, teams
from thaw.cli.audit import audit
from thaw.cli.checkpoints import checkpoints
from thaw.cli.extract import extract
from thaw.cli.plan import plan
from thaw.cli.predict import predict
from thaw.cli.queue import queue
from thaw.cli.session import remember
from thaw.cli.submit import submit
from thaw.cli.up import up
from thaw.cli.usage import usage
from thaw.cli.watch import watch


def build() -> typer.Typer:
    """The whole command line."""
    app = _group()
    app.callback()(remember)
    for command in (up, submit, plan, extract, watch, jobs.show, jobs.logs, jobs.metrics):
        app.command()(command)
    for stop in (stops.cancel, stops.pause, stops.resume, stops.preempt):
        app.command()(stop)
    app.command("list")(jobs.list_jobs)
    app.command("rm")(jobs.remove)
    app.command()(queue)
    app.command()(usage)
    app.command()(checkpoints)
    app.command()(results.download)
    app.command()(predict)
    app.add_typer(_files(), name="files")
    app.add_typer(_models(), name="models")
    app.add_typer(_nodes(), name="node")
    app.add_typer(_teams(), name="team")
    app.add_typer(_keys(), name="key")
    app.command()(audit)
    return app


def _files() -> typer.Typer:
    group = _group(help="Data sets and weights on the server.")
    group.command("put")(files.put)
    group.command("list")(files.list_files)
    group.command("rm")(files.remove)
    return group


def _models() -> typer.Typer:
    group = _group(help="Base models; `show NAME` gives the layer tree.", without_command=True)
    group.callback()(models.list_models)
    group.command("show")(models.show_model)
    return group


def _nodes() -> typer.Typer:
    group = _group(help="The machines that jobs run on.")
    group.command("list")(nodes.list_nodes)
    for command in (nodes.show, nodes.drain, nodes.undrain):
        group.command()(command)
    return group


def _teams() -> typer.Typer:
    group = _group(help="The teams that share the server.")
    group.command("create")(teams.create)
    group.command("list")(teams.list_teams)
    group.command("show")(teams.show)
    group.command("rm")(teams.remove)
    group.add_typer(_quotas(), name="quota")
    return group


def _quotas() -> typer.Typer:
    group = _group(help="What a team is owed, and what its jobs may ask for.")
    group.command("show")(team_quota.show)
    group.command("set")(team_quota.set_terms)
    return group


def _keys() -> typer.Typer:
    group = _group(help="API keys: made, listed, revoked.")
    group.command("create")(keys.create)
    group.command("list")(keys.list_keys)
    group.command("revoke")(keys.revoke)
    return group


def _group(help: str | None = None, *, without_command: bool = False) -> typer.Typer:
    # Plain errors in one line: what a script logs should not be a frame of box characters.
    return typer.Typer(
        help=help,
        no_args_is_help=not without_command,
        invoke_without_command=without_command,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
