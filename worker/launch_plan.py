"""From a claim, the node's settings and its devices to what its launcher is told."""

from __future__ import annotations

import os
from collections.abc import Sequence

from shared.db.leases import Claim
from shared.db.peers import Peer
from shared.domain.extraction import AnyRunSpec, batch_in_words
from shared.settings import Settings
from worker.devices import Devices
from worker.launch import LaunchPlan, PeerAddress
from worker.rendezvous import addresses_of, interface_of
from worker.run_clock import START_S
from worker.slots import slot_lock_path

LOG_BYTES = 10 * 1024 * 1024
# For a step that hangs: between two steps the engine keeps max_duration_s by itself.
OVERTIME_S = 30.0
# Of a gang the ranks begin together, so that its first nodes wait for the last one's inputs.
GANG_START_S = 3600.0


def launch_plan(
    claim: Claim, settings: Settings, devices: Devices, spec: AnyRunSpec, peers: Sequence[Peer]
) -> LaunchPlan:
    """GPUs are named by UUID: numbers would mean others where CUDA counts otherwise, or one is gone."""
    is_gang = claim.nodes > 1
    return LaunchPlan(
        nodes=claim.nodes,
        node_rank=claim.node_rank,
        master_addr=claim.master_addr,
        master_port=claim.master_port,
        interface=interface_of(settings.advertise_host) if is_gang else None,
        node_name=settings.node_name,
        peers=_where_they_answer(peers),
        unreachable_s=settings.scaled(settings.unreachable_s),
        slot_locks=[str(slot_lock_path(settings.work_dir, slot)) for slot in claim.slots],
        visible_devices=",".join(devices.uuids[slot] for slot in claim.slots) if devices.uuids else None,
        threads_per_rank=max(1, len(os.sched_getaffinity(0)) // devices.n_slots),
        trainer_env=settings.trainer_env,
        trainer_uid=settings.trainer_uid,
        hold_after_s=settings.scaled(settings.hold_after_s),
        kill_after_held_s=settings.scaled(settings.kill_after_held_s),
        stall_s=settings.scaled(settings.stall_s),
        start_s=GANG_START_S if is_gang else START_S,
        # Clocks of other nodes run ahead of it by what they have waited for the first.
        max_duration_s=spec.max_duration_s if claim.node_rank == 0 else None,
        spent_s=spec.spent_s or 0.0,
        overtime_s=settings.scaled(OVERTIME_S),
        batch=batch_in_words(spec),
        log_bytes=LOG_BYTES,
    )


def _where_they_answer(peers: Sequence[Peer]) -> list[PeerAddress]:
    """Looked up once and here, as a name service that is away answers late: then the launcher could not hold.

    What nobody can look up now is left out: that says nothing of the node.
    """
    found = ((peer, addresses_of(peer.host)) for peer in peers)
    return [
        PeerAddress(node=peer.node_id, addresses=sorted(addresses), port=peer.port)
        for peer, addresses in found
        if addresses
    ]
