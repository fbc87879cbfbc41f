"""Which samples share a shard and which rank computes it, whatever the numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.training.extraction_plan import SHARD_BYTES, SHARDS_AT_LEAST, Shares, plan_shards

counts = st.integers(1, 5_000)
batches = st.integers(1, 200)
sizes = st.integers(1, 2 * SHARD_BYTES)
ranks = st.integers(1, 9)


@given(n=counts, batch=batches, size=sizes, world=ranks, data=st.data())
def test_every_sample_is_some_ranks_once_and_shards_know_no_ranks(
    n: int, batch: int, size: int, world: int, data: st.DataObject
) -> None:
    shards = plan_shards(n, batch, size, "safetensors")
    assert [place for shard in shards for place in range(shard.start, shard.stop)] == list(range(n))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for shard in shards:
        assert shard.n_samples == 1 or shard.n_samples * size <= SHARD_BYTES
        whole = [len(part) for part in shard.batches(batch)]
        assert sum(whole) == shard.n_samples
        assert all(part == batch for part in whole[:-1])

    finished = data.draw(st.sets(st.sampled_from([shard.name for shard in shards])))
    shares = Shares.of(shards, finished, world, batch)
    mine = [shard for of_rank in shares.of_rank for shard in of_rank]
    assert sorted(shard.name for shard in mine) == sorted({s.name for s in shards} - finished)
    assert shares.n_done[0] == 0
    assert shares.n_done[-1] == sum(shard.n_samples for shard in mine)
    assert [round_ for round_, _ in shares.whole_after] == sorted(r for r, _ in shares.whole_after)
    assert {shard.name for _, shard in shares.whole_after} == {shard.name for shard in mine}
    assert max((round_ for round_, _ in shares.whole_after), default=0) == shares.rounds


def test_small_data_sets_are_shared_out_and_large_activations_bound_a_shard() -> None:
    small = plan_shards(1797, 32, 2048, "safetensors")
    assert len(small) >= SHARDS_AT_LEAST
    assert {shard.n_samples % 32 for shard in small[:-1]} == {0}
    large = plan_shards(100_000, 32, 4 * 2**20, "parquet")
    assert {shard.n_samples for shard in large[:-1]} == {32}
    assert large[7].name == "part-00007.parquet"
    assert [shard.n_samples for shard in plan_shards(3, 32, 10 * SHARD_BYTES, "parquet")] == [1, 1, 1]
    assert len(plan_shards(5, 32, 8, "safetensors")) == 1
