"""Fair share on whole clusters: the scheduler's own pure functions in a discrete-event simulation.

Two clusters of the traces in ../shared/data (see --data), 50 teams by Zipf's law, some with weight 2:

- `openb`: 1,213 nodes with 6,212 GPUs of 7 models, and its 7,064 GPU tasks. Together they ask for little more
  GPUs than there are, so they are replayed again and again, pauses squeezed, until one and a half times what
  there is is asked for; run times stay as they were, from seconds to months. A task that asks for a part of
  a GPU counts as one GPU.
- `spot`: 4,278 nodes with 10,412 GPUs of 6 models, and 100,000 generated jobs of 1 to 8 GPUs, among them
  gangs: 2 nodes with 4 or 8 GPUs each, 4 nodes with 8 each. (The trace above knows no gangs.)

Any files of the same columns: --nodes FILE [--tasks FILE].

Each load runs under five ways of sharing, all through `fairshare.decide`: fair share where the teams' nominal
quotas add up to the cluster and what is idle is lent; fair share without any quota; first come, first served
(with backfill round the first job that waits); the same quotas lending and borrowing nothing; and plain
priority over all teams. Told are what is used of all GPUs from the first second on, waits by size,
preemptions, the time of one pass and the most jobs that waited in one, GPUs placed in percent of
first-fit-decreasing from the same free slots and permitted jobs (summed over all passes), and the share
error, the worst of all teams and half-lives, which `_cluster_figures.py` defines: it is of what was held, so
that it says nothing of what stood idle.

Wanted of fair share in one run: a share error of at most 2 percentage points, and at least 97% of
first-fit-decreasing. Without quotas nothing is taken back for balance alone: there a team that held much when
few waited keeps it until its jobs end, and where some last for months the error is larger.

Writes benchmarks/results/cluster_sim.json, and beside it each team's share over time, cluster_sim_NAME.svg.
Run it with `.venv/bin/python benchmarks/cluster_sim.py`; a few minutes.
"""

from __future__ import annotations

import json
import os
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _cluster_events import Clock, Record, Simulation
from _cluster_figures import Share, over_time, pass_times, placed_of_possible, shares, utilisation, waits
from _cluster_load import Host, Job, Wanted, generated, read_hosts, read_tasks, replayed, slots_of, teams_of
from _cluster_picture import Panel, picture
from _cluster_policies import Policy, policies
from _cluster_tables import WANTED_ERROR, WANTED_PLACED, show

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parents[2] / "shared" / "data"
OPENB_NODES, OPENB_TASKS = "openb/openb_node_list_gpu_node.csv", "openb/openb_pod_list_default.csv"
SPOT_NODES = "spot/node_info_df.csv"
N_BINS = 90


@dataclass(frozen=True)
class Cluster:
    name: str
    hosts: list[Host]
    jobs: list[Job]


def main() -> None:
    options = asked()
    if options.data is None and options.nodes is None and not DATA.is_dir():
        print(f"skipped: there are no traces in {DATA}; name their folder with --data, or files with --nodes")
        return
    load = os.getloadavg()[0]
    RESULTS.mkdir(exist_ok=True)
    results = [run(cluster, options) for cluster in clusters(options)]
    told = {"options": {key: str(value) for key, value in vars(options).items()}, "load_at_start": load}
    wanted = {"share_error": WANTED_ERROR, "placed_percent": WANTED_PLACED}
    path = RESULTS / "cluster_sim.json"
    path.write_text(json.dumps({**told, "wanted": wanted, "clusters": results}, indent=1) + "\n")


def asked() -> Namespace:
    parser = ArgumentParser(description="Fair share on whole clusters, simulated; see the head of this file.")
    parser.add_argument("--data", type=Path, help=f"folder of the traces; {DATA} when left out")
    parser.add_argument("--nodes", type=Path, help="another cluster, instead of the two")
    parser.add_argument("--tasks", type=Path, help="its tasks; left out, jobs are generated")
    parser.add_argument("--jobs", type=int, default=100_000, help="how many are generated")
    parser.add_argument("--teams", type=int, default=50)
    parser.add_argument("--zipf", type=float, default=1.0, help="the k-th team sends 1/k^ZIPF of the first's")
    parser.add_argument("--load", type=float, default=1.5, help="what is asked for, of all GPUs all along")
    parser.add_argument("--half-life-h", type=float, default=3.0, help="of the usage that is remembered")
    parser.add_argument("--half-lives", type=int, default=3, help="how many are simulated; at least 2")
    parser.add_argument("--pass-s", type=float, default=360.0, help="from one scheduling pass to the next")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    if options.nodes and options.data:
        parser.error("--data and --nodes name two sources of clusters: leave one out")
    if options.tasks and not options.nodes:
        parser.error("--tasks needs --nodes: whose tasks are they?")
    if options.half_lives < 2:
        parser.error("--half-lives must be at least 2: in the first there is no past to go by")
    for name in ("jobs", "teams", "load", "half_life_h", "pass_s"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be greater than 0")
    return options


def clusters(options: Namespace) -> Iterator[Cluster]:
    if options.nodes:
        yield cluster(options.nodes.stem, options.nodes, options.tasks, options)
        return
    data = options.data or DATA
    yield cluster("openb", data / OPENB_NODES, data / OPENB_TASKS, options)
    yield cluster("spot", data / SPOT_NODES, None, options)


def cluster(name: str, nodes: Path, tasks: Path | None, options: Namespace) -> Cluster:
    hosts = read_hosts(nodes)
    wanted = Wanted(
        teams=teams_of(options.teams),
        load=options.load,
        until_s=clock_of(options).until_s,
        seed=options.seed,
        zipf=options.zipf,
    )
    if tasks is None:
        return Cluster(name, hosts, generated(options.jobs, slots_of(hosts), wanted))
    return Cluster(name, hosts, replayed(read_tasks(tasks), slots_of(hosts), wanted))


def clock_of(options: Namespace) -> Clock:
    half_life_s = options.half_life_h * 3600
    return Clock(options.pass_s, half_life_s, half_life_s * options.half_lives)


def run(cluster: Cluster, options: Namespace) -> dict[str, Any]:
    """The cluster under every policy: shown, drawn, and returned for the file."""
    weights, clock = teams_of(options.teams), clock_of(options)
    rows, panels = [], []
    for policy in policies(cluster.hosts, weights):
        began = time.perf_counter()
        record = Simulation(cluster.hosts, cluster.jobs, policy, clock).run()
        found = shares(record, cluster.jobs, weights, slots_of(cluster.hosts), clock)
        took_s = time.perf_counter() - began
        rows.append({**row(cluster, policy, record, found, clock.until_s), "simulated_in_s": took_s})
        panels.append(panel(cluster, policy, record, clock.until_s))
    title = f"{cluster.name}: each team's share of {slots_of(cluster.hosts):,} GPUs"
    drawn = RESULTS / f"cluster_sim_{cluster.name}.svg"
    drawn.write_text(picture(title, panels, list(weights), clock.until_s / 3600))
    result = {
        "cluster": cluster.name,
        "nodes": len(cluster.hosts),
        "gpus": slots_of(cluster.hosts),
        "jobs": len(cluster.jobs),
        "gangs": sum(job.nodes > 1 for job in cluster.jobs),
        "hours": clock.until_s / 3600,
        "policies": rows,
    }
    setting = f"a half-life of {options.half_life_h:g} h, a pass every {options.pass_s:g} s"
    show(result, f"{options.teams} teams by Zipf, {setting}")
    return result


def row(
    cluster: Cluster, policy: Policy, record: Record, found: Sequence[Share], until_s: float
) -> dict[str, Any]:
    worst = max((abs(share.error) for share in found), default=None)
    p50, p99 = pass_times(record.passes)
    return {
        "policy": policy.name,
        "utilisation_percent": utilisation(record, slots_of(cluster.hosts), until_s),
        "share_error_points": worst,
        "backlogged_teams": len({share.team for share in found}),
        "placed_percent_of_ffd": placed_of_possible(record.passes),
        "preemptions": record.n_preempted,
        "passes": len(record.passes),
        "most_waiting": max(one.n_waiting for one in record.passes),
        "pass_ms": {"p50": p50, "p99": p99},
        "wait_s": {
            f"{nodes} x {devices}" if nodes > 1 else str(devices): {"p50": half, "p99": most}
            for (nodes, devices), (half, most) in waits(record, cluster.jobs, until_s).items()
        },
        "shares": [
            {
                "team": share.team,
                "from_h": share.window[0] / 3600,
                "held_percent": share.held,
                "fair_percent": share.fair,
                "error_points": share.error,
            }
            for share in found
        ],
    }


def panel(cluster: Cluster, policy: Policy, record: Record, until_s: float) -> Panel:
    n_slots = slots_of(cluster.hosts)
    bands = {
        team: [100 * slots / n_slots for slots in line]
        for team, line in over_time(record.holds, until_s, N_BINS).items()
    }
    return Panel(policy.name, bands)


if __name__ == "__main__":
    main()
