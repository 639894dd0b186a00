"""Which clients are computed together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.engines._stacks import MOST_PADDING, Stack, padded_steps, padding_share, stacks
from laconic.errors import ArgumentError

sizes_of_cohorts = st.lists(st.integers(1, 5000), max_size=150)
counts = st.integers(1, 9)


@given(sizes_of_cohorts, counts, st.integers(1, 70))
def test_every_client_once(sizes, devices, clients_per_device):
    """No client is left out or computed twice, and each has as many steps as it needs."""
    found = stacks(sizes, devices=devices, clients_per_device=clients_per_device)
    assert sorted(position for stack in found for position in stack.members) == list(range(len(sizes)))
    assert all(sizes[position] <= stack.steps for stack in found for position in stack.members)


@given(sizes_of_cohorts, counts, st.integers(1, 70))
def test_little_padding(sizes, devices, clients_per_device):
    """Steps beyond a client's own, and dummies, are at most 15 % of each stack and so of the whole."""
    found = stacks(sizes, devices=devices, clients_per_device=clients_per_device)
    for stack in found:
        assert padding_share([stack], sizes) <= MOST_PADDING + 1e-9
    assert padding_share(found, sizes) <= MOST_PADDING + 1e-9


@given(sizes_of_cohorts, counts, st.integers(1, 70))
def test_devices_share_evenly(sizes, devices, clients_per_device):
    """Rows are a multiple of the devices that compute them, and no more than each may take."""
    for stack in stacks(sizes, devices=devices, clients_per_device=clients_per_device):
        assert stack.rows % stack.devices == 0
        assert len(stack.members) <= stack.rows <= clients_per_device * stack.devices
        assert stack.devices <= devices


@given(sizes_of_cohorts, st.randoms())
def test_a_cohort_in_another_order(sizes, random):
    """Shapes depend on what sizes there are, not on their order, and the same sizes give the same stacks."""
    shuffled = random.sample(sizes, len(sizes))
    first, again, other = (stacks(each, devices=2, clients_per_device=8) for each in (sizes, sizes, shuffled))
    assert first == again
    assert [(s.rows, s.steps, s.devices) for s in first] == [(s.rows, s.steps, s.devices) for s in other]


def test_few_shapes():
    """Clients of 1 to 1000 steps have at most 64 numbers of steps between them."""
    assert len({padded_steps(size) for size in range(1, 1001)}) <= 64


@given(st.integers(1, 10**6))
def test_steps_are_padded_by_less_than_a_tenth(size):
    """The ladder's rungs are within a tenth of each other, and the small ones next to each other."""
    assert size <= padded_steps(size) < 1.1 * size + 1


def test_equal_clients_fill_stacks():
    """Clients of one size make full stacks; what is left makes smaller ones, and computes no dummies it need not."""
    found = stacks([7] * 100, devices=4, clients_per_device=16)
    assert [(stack.rows, stack.devices) for stack in found] == [(64, 4), (32, 4), (4, 4)]
    assert padding_share(found, [7] * 100) == 0


def test_fewer_clients_than_devices():
    """Devices are left idle rather than to compute dummies."""
    assert stacks([3, 3, 3], devices=8, clients_per_device=4) == [Stack((0, 1, 2), rows=3, steps=3, devices=3)]


def test_one_dummy_among_many():
    """A stack that lacks a few clients is filled up: fewer programs, within the limit."""
    (stack,) = stacks([5] * 15, devices=8, clients_per_device=2)
    assert (len(stack.members), stack.rows) == (15, 16)


def test_nobody():
    """No clients, no stacks, no padding."""
    assert stacks([], devices=2, clients_per_device=3) == []
    assert padding_share([], []) == 0


def test_sizes_are_checked():
    """A client has at least one step."""
    with pytest.raises(ArgumentError, match="sizes must be at least 1, got 0"):
        stacks([1, 0], devices=1, clients_per_device=1)
