"""What the meter counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs
from laconic.federated import (
    Traffic,
    TrafficEntry,
    at_clients,
    at_server,
    federated_broadcast,
    federated_computation,
    federated_map,
    federated_mean,
    federated_sum,
    format_bytes,
    format_tff_bits,
)

MODEL = {"kernel": np.ones((30, 4), np.float32), "bias": np.ones(4, np.float32)}
CODEC = codecs.uniform_quantization(8)


@federated_computation(at_server(MODEL), at_clients(jnp.float32))
def train(model, weights):
    """A round in miniature: 8-bit kernel both ways, raw bias, a weight and a metric."""
    codec = {"kernel": CODEC, "bias": codecs.identity()}
    received = federated_broadcast(model, codec=codec)
    mean = federated_mean(received, weights, codec=codec, label="update")
    return mean, federated_sum(weights, label="metrics", kind="metrics")


def test_every_byte_is_accounted_for():
    """Shares by direction, value and kind are those of the tensors, and nothing is left over."""
    traffic = train.run(MODEL, [np.float32(1), np.float32(2)], key=0).traffic
    assert traffic.by("direction", "value", "tensor", "kind") == {
        ("broadcast", "model", "kernel", "payload"): 2 * 120,
        ("broadcast", "model", "kernel", "side_information"): 2 * 8,
        ("broadcast", "model", "bias", "payload"): 2 * 16,
        ("broadcast", "message", "", "framing"): 2 * 8,
        ("aggregate", "update", "kernel", "payload"): 2 * 120,
        ("aggregate", "update", "kernel", "side_information"): 2 * 8,
        ("aggregate", "update", "bias", "payload"): 2 * 16,
        ("aggregate", "update weight", "", "weights"): 2 * 4,
        ("aggregate", "metrics", "", "metrics"): 2 * 4,
        ("aggregate", "message", "", "framing"): 2 * 8,
    }
    assert traffic.broadcast_bytes == 2 * (120 + 8 + 16 + 8)
    assert traffic.aggregate_bytes == traffic.broadcast_bytes + 2 * 8
    assert traffic.total_bytes == traffic.broadcast_bytes + traffic.aggregate_bytes


def test_tensor_bits_are_tff_s():
    """Elements times dtype bits, for every tensor that moves, and nothing for framing."""
    traffic = train.run(MODEL, [np.float32(1)], key=0).traffic
    assert traffic.broadcast_tensor_bits == 120 * 8 + 2 * 32 + 4 * 32
    assert traffic.aggregate_tensor_bits == traffic.broadcast_tensor_bits + 2 * 32


def test_per_client_on_request():
    """Each client's bytes are told when asked for, and add up to the whole."""
    run = train.run(MODEL, [np.float32(1), np.float32(2)], key=0, per_client_traffic=True)
    assert set(run.traffic.clients) == {"0", "1"}
    down, up = (sum(each) for each in zip(*run.traffic.clients.values(), strict=True))
    assert (down, up) == (run.traffic.broadcast_bytes, run.traffic.aggregate_bytes)
    assert train.run(MODEL, [np.float32(1)], key=0).traffic.clients == {}


def test_traffic_adds_up():
    """Cumulative totals are sums; per-client totals add by client."""
    one = Traffic((TrafficEntry("broadcast", "model", "w", "payload", 10, 80),), {"a": (10, 0)})
    two = Traffic((TrafficEntry("aggregate", "update", "w", "payload", 3, 24),), {"a": (1, 3), "b": (0, 1)})
    total = one + two + one
    assert (total.broadcast_bytes, total.aggregate_bytes) == (20, 3)
    assert (total.broadcast_tensor_bits, total.aggregate_tensor_bits) == (160, 24)
    assert total.clients == {"a": (21, 3), "b": (0, 1)}
    assert sum([one, two], Traffic()).entries == (one + two).entries


def test_traffic_of_several_passes():
    """Every pass counts, each broadcast once for each client."""

    @federated_computation(at_clients(jnp.float32))
    def spread(values):
        mean = federated_broadcast(federated_mean(values))
        return federated_mean(federated_map(lambda x, m: (x - m) ** 2, (values, mean)))

    traffic = spread.run([np.float32(1)] * 5).traffic
    assert traffic.broadcast_bytes == 5 * (4 + 8)
    assert traffic.aggregate_bytes == 2 * 5 * (4 + 8)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_683_008, "1.68 MB"), (2.5e9, "2.50 GB"), (3e12, "3.00 TB")],
)
def test_bytes_are_shown_in_decimal_units(count, text):
    """kB, MB and GB are powers of a thousand."""
    assert format_bytes(count) == text


def test_bits_are_shown_as_the_tutorial_showed_them():
    """Its MiB were 2**20 bits; the figure stays and the unit is right."""
    one_round = 10 * 1_663_370 * 32
    assert [format_tff_bits(one_round * n) for n in (1, 2, 3)] == ["507.62 Mibit", "1015.24 Mibit", "1.49 Gibit"]


def test_traffic_prints_both_directions():
    """A round's traffic reads as a phrase."""
    assert str(train.run(MODEL, [np.float32(1)], key=0).traffic) == "152 B down, 160 B up"
