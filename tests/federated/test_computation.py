"""Building and running federated computations."""

import jax.numpy as jnp
import numpy as np
import pytest

from laconic import codecs
from laconic.errors import ArgumentError, ArgumentTypeError, LaconicError, NonFiniteError, PlacementError
from laconic.federated import (
    CLIENTS,
    SERVER,
    ClientWork,
    SequenceOf,
    at_clients,
    at_server,
    federated_aggregate,
    federated_broadcast,
    federated_client_key,
    federated_computation,
    federated_map,
    federated_max,
    federated_mean,
    federated_min,
    federated_sum,
    federated_value,
    federated_zip,
)

VALUES = [np.float32(3), np.float32(-1), np.float32(4)]


def build(*types):
    """Shorthand for the decorator with types."""
    return federated_computation(*types)


def test_hello_world():
    """The tutorial's first cell."""

    @federated_computation
    def hello_world():
        return "Hello, World!"

    assert hello_world() == "Hello, World!"
    assert hello_world.type_signature == "( -> string)"


def test_type_signature():
    """A computation shows its type in the compact notation."""

    @federated_computation(at_server(jnp.float32), at_clients(jnp.float32))
    def scaled_mean(scale, values):
        return federated_map(jnp.multiply, (scale, federated_mean(values)))

    assert scaled_mean.type_signature == "(<float32@SERVER,{float32}@CLIENTS> -> float32@SERVER)"
    assert repr(scaled_mean) == f"<federated computation scaled_mean {scaled_mean.type_signature}>"


@pytest.mark.parametrize(
    ("intrinsic", "expected"),
    [(federated_sum, 6), (federated_mean, 2), (federated_min, -1), (federated_max, 4)],
)
def test_reductions(intrinsic, expected):
    """Each reduction gives what its name says, at the server."""
    assert build(at_clients(jnp.float32))(intrinsic)(VALUES) == expected


def test_reductions_of_one_sign():
    """A minimum of positive and a maximum of negative values is not taken for zero."""
    assert build(at_clients(jnp.float32))(federated_min)([np.float32(2), np.float32(3)]) == 2
    assert build(at_clients(jnp.float32))(federated_max)([np.float32(-2), np.float32(-3)]) == -2


def test_weighted_mean_of_a_structure():
    """Each client counts by its weight, in every tensor."""

    @federated_computation(at_clients({"a": jnp.float32, "b": np.zeros(2, np.float32)}), at_clients(jnp.int32))
    def mean(values, weight):
        return federated_mean(values, weight)

    values = [{"a": np.float32(i), "b": np.array([i, -i], np.float32)} for i in (1, 4)]
    result = mean(values, [np.int32(1), np.int32(3)])
    assert result["a"] == pytest.approx(13 / 4)
    np.testing.assert_allclose(result["b"], [13 / 4, -13 / 4])


def test_a_mean_of_zero_weight_is_zero():
    """No NaN arises where no client counts."""
    mean = build(at_clients(jnp.float32), at_clients(jnp.float32))(federated_mean)
    assert mean(VALUES, [np.float32(0)] * 3) == 0


def test_aggregate_with_functions_of_ones_own():
    """zero, accumulate, merge and report make any streaming reduction; here the variance."""

    @federated_computation(at_clients(jnp.float32))
    def variance(values):
        return federated_aggregate(
            values,
            zero=(0.0, 0.0, 0.0),
            accumulate=lambda sums, x: (sums[0] + 1, sums[1] + x, sums[2] + x * x),
            merge=lambda a, b: tuple(p + q for p, q in zip(a, b, strict=True)),
            report=lambda sums: sums[2] / sums[0] - (sums[1] / sums[0]) ** 2,
        )

    assert variance(VALUES) == pytest.approx(np.var(VALUES))


def test_several_passes():
    """What a first pass aggregates can be broadcast to a second, which still knows the clients' values."""

    @federated_computation(at_clients(jnp.float32))
    def spread(values):
        mean = federated_mean(values)
        received = federated_broadcast(mean)
        squares = federated_map(lambda x, m: (x - m) ** 2, (values, received))
        variance = federated_mean(squares)
        furthest = federated_max(federated_map(lambda s, v: s / v, (squares, federated_broadcast(variance))))
        return mean, variance, furthest

    mean, variance, furthest = spread(VALUES)
    assert (mean, float(variance)) == (2, pytest.approx(np.var(VALUES)))
    assert furthest == pytest.approx(9 / np.var(VALUES))


def test_a_later_pass_computes_only_what_it_needs():
    """Client work whose result is sent in one pass is not done again in the next, unless its result is used there."""

    class Counted(list):
        passes = 0

        def __iter__(self):
            type(self).passes += 1
            return super().__iter__()

    work = ClientWork(lambda: jnp.zeros(()), jnp.add, lambda carry: carry)

    @federated_computation(at_clients(SequenceOf(jnp.float32)), at_clients(jnp.float32))
    def above(data, values):
        total = federated_broadcast(federated_sum(federated_map(work, data)))
        return federated_max(federated_map(jnp.subtract, (values, total)))

    assert above([Counted(VALUES), Counted(VALUES)], VALUES[:2]) == 3 - 12
    assert Counted.passes == 2


def test_values_that_stay_at_the_clients():
    """A result at CLIENTS is a list over the cohort, and nothing travels for it."""

    @federated_computation(at_server(jnp.float32), at_clients(jnp.float32))
    def shifted(offset, values):
        return federated_map(jnp.add, (federated_broadcast(offset), values))

    run = shifted.run(1.0, VALUES)
    assert [float(value) for value in run.result] == [4, 0, 5]
    assert run.traffic.aggregate_bytes == 0
    assert run.traffic.broadcast_bytes == 3 * (4 + 8)


def test_constants_and_zip():
    """Constants can be placed, and values zipped, without traffic."""

    @federated_computation(at_clients(jnp.float32))
    def dot(values):
        both = federated_zip({"x": values, "two": federated_value(2.0, CLIENTS)})
        return federated_sum(federated_map(lambda pair: pair["x"] * pair["two"], both)), federated_value(7, SERVER)

    assert [float(value) for value in dot(VALUES)] == [12, 7]


def test_server_only():
    """A computation without clients runs, and moves nothing."""
    run = build(at_server(jnp.float32))(lambda x: federated_map(jnp.negative, x)).run(2)
    assert run.result == -2
    assert run.traffic.total_bytes == 0


def test_computations_nest():
    """A computation called with placed values becomes part of the one being built."""
    mean = build(at_clients(jnp.float32))(federated_mean)

    @federated_computation(at_clients(jnp.float32))
    def centered(values):
        return federated_sum(federated_map(jnp.subtract, (values, federated_broadcast(mean(values)))))

    assert centered(VALUES) == pytest.approx(0, abs=1e-6)
    with pytest.raises(PlacementError, match=r"takes \{float32\}@CLIENTS, got float32@SERVER"):
        build(at_server(jnp.float32))(lambda x: mean(x))


def test_client_work_folds_over_a_sequence():
    """init, step and final see the broadcast value and each element in order."""

    @federated_computation(at_server(jnp.float32), at_clients(SequenceOf(np.zeros(2, np.float32))))
    def decayed(rate, data):
        work = ClientWork(
            init=lambda rate: (rate, jnp.zeros(2)),
            step=lambda carry, x: (carry[0], carry[0] * carry[1] + x),
            final=lambda carry, rate: carry[1] + 0 * rate,
        )
        return federated_sum(federated_map(work, (federated_broadcast(rate), data)))

    clients = [[np.float32([1, 2]), np.float32([3, 4])], [np.float32([5, 6])]]
    np.testing.assert_allclose(decayed(0.5, clients), [0.5 + 3 + 5, 1 + 4 + 6])


def test_client_keys_differ_by_client_and_call():
    """Keys come from the call's key and the client's id alone."""

    class Item(np.ndarray):
        """A value with an id."""

    def item(name):
        array = np.zeros((), np.float32).view(Item)
        array.client_id = name
        return array

    @federated_computation(at_clients(jnp.float32))
    def draw(values):
        return federated_map(lambda key, x: codecs.random.uniform(key, ()) + x, (federated_client_key(), values))

    first = draw([item("a"), item("b")], key=1)
    assert first[0] != first[1]
    assert draw([item("b"), item("a")], key=1) == first[::-1]
    assert draw([item("a"), item("b")], key=2) != first


def test_the_same_key_gives_the_same_bits():
    """Stochastic codecs draw from the key, the direction and the client."""
    codec = codecs.uniform_quantization(2)
    values = [np.linspace(i, i + 1, 50, dtype=np.float32) for i in range(3)]
    total = build(at_clients(np.zeros(50, np.float32)))(lambda x: federated_sum(x, codec=codec))
    np.testing.assert_array_equal(total(values, key=5), total(values, key=5))
    assert not np.array_equal(total(values, key=5), total(values, key=6))


def test_clients_draw_apart():
    """Two clients with equal values round apart, so that their errors average out."""
    codec = codecs.uniform_quantization(1)
    x = np.linspace(0, 1, 64, dtype=np.float32)
    total = build(at_clients(x))(lambda v: federated_sum(v, codec=codec))
    assert set(np.unique(np.asarray(total([x, x], key=0)))) == {0, 1, 2}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda s, c: federated_broadcast(c), r"federated_broadcast takes a value at SERVER, got \{float32\}@CLIENTS"),
        (lambda s, c: federated_sum(s), r"federated_sum takes a value at CLIENTS, got float32@SERVER"),
        (lambda s, c: federated_map(jnp.add, (s, c)), r"got float32@SERVER and \{float32\}@CLIENTS"),
        (lambda s, c: federated_zip((s, c)), r"values at one placement, got float32@SERVER and \{float32\}@CLIENTS"),
        (lambda s, c: federated_mean(c, s), r"federated_mean takes a value at CLIENTS, got float32@SERVER"),
        (lambda s, c: federated_map(jnp.add, c), r"does not take \(float32\)"),
        (lambda s, c: federated_map(jnp.add, 3), r"takes federated values, got 3 of type int"),
        (lambda s, c: federated_value(1, "SERVER"), r"placement must be SERVER or CLIENTS, got 'SERVER'"),
        (lambda s, c: s["name"], r"float32@SERVER has no element \['name'\]"),
        (lambda s, c: s if s else c, r"has no truth value"),
        (lambda s, c: federated_sum(federated_map(lambda x: x > 0, c)), r"takes numbers, got \{bool\}@CLIENTS"),
        (lambda s, c: federated_mean(federated_map(jnp.int32, c)), r"floating-point tensors, got \{int32\}@CLIENTS"),
        (lambda s, c: federated_sum(c, state=c), r"federated_sum takes a value at SERVER, got \{float32\}@CLIENTS"),
    ],
)
def test_type_errors_when_built(function, message):
    """Values that do not fit are refused while the computation is built, in one sentence that names the types."""
    with pytest.raises(PlacementError, match=message):
        build(at_server(jnp.float32), at_clients(jnp.float32))(lambda s, c: function(s, c))


def test_aggregate_types_are_checked():
    """Accumulate and merge must keep the accumulator's type."""

    def aggregate(accumulate, merge):
        build(at_clients(jnp.float32))(
            lambda c: federated_aggregate(c, zero=0.0, accumulate=accumulate, merge=merge, report=lambda x: x)
        )

    with pytest.raises(PlacementError, match="accumulate must return zero's type, float32, got int32"):
        aggregate(lambda a, x: jnp.int32(a + x), jnp.add)
    with pytest.raises(PlacementError, match=r"merge must return zero's type, float32, got <float32,float32>"):
        aggregate(jnp.add, lambda a, b: (a, b))


def test_client_work_is_checked():
    """A step must keep its carry's type, and work takes exactly one sequence."""
    work = ClientWork(lambda: jnp.int32(0), lambda carry, x: carry + x, lambda carry: carry)
    with pytest.raises(PlacementError, match="a carry of the type it takes, int32, got float32"):
        build(at_clients(SequenceOf(jnp.float32)))(lambda data: federated_map(work, data))
    with pytest.raises(PlacementError, match="takes one sequence among its values, got 0"):
        build(at_clients(jnp.float32))(lambda data: federated_map(work, data))
    with pytest.raises(PlacementError, match=r"cannot be mapped over the sequence \{float32\*\}@CLIENTS"):
        build(at_clients(SequenceOf(jnp.float32)))(lambda data: federated_map(jnp.negative, data))
    with pytest.raises(PlacementError, match=r"federated_sum takes tensors, got the sequence \{float32\*\}"):
        build(at_clients(SequenceOf(jnp.float32)))(lambda data: federated_sum(data))
    with pytest.raises(PlacementError, match="federated_mean takes tensors, got the sequence"):
        build(at_clients(SequenceOf(jnp.float32)))(lambda data: federated_mean(data))
    with pytest.raises(PlacementError, match=r"a weight of one number, got \{float32\*\}@CLIENTS"):
        build(at_clients(jnp.float32), at_clients(SequenceOf(jnp.float32)))(lambda x, data: federated_mean(x, data))
    with pytest.raises(PlacementError, match="only tensors travel between SERVER and CLIENTS, got the sequence"):
        build(at_clients(SequenceOf(jnp.float32)))(lambda data: federated_min(data))


def test_parameters_need_types():
    """The decorator says what it misses."""
    with pytest.raises(ArgumentTypeError, match="a parameter for each of the 2 types"):
        build(at_server(jnp.float32), at_server(jnp.float32))(lambda x: x)
    with pytest.raises(ArgumentTypeError, match=r"must be at_server\(...\) or at_clients\(...\), got"):
        build(jnp.float32)


def test_values_of_another_computation_are_refused():
    """A value must come in as an argument."""
    leaked = []

    @federated_computation(at_server(jnp.float32))
    def leak(x):
        leaked.append(x)
        return x

    assert leak(1.0) == 1
    with pytest.raises(PlacementError, match="a value of another computation, float32@SERVER"):
        build(at_server(jnp.float32))(lambda x: federated_map(jnp.add, (x, leaked[0])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.0,), "takes 2 arguments"),
        ((1.0, []), "must have at least one client, got an empty cohort"),
        ((1.0, 2.0), "must be a list with an item for each client, got float"),
        ((np.zeros(3, np.float32), VALUES), r"argument 0 must be float32, got float32\[3\]"),
        ((1.0, [np.float32(1), np.int32(1)]), "argument 1 of client 1 must be float32, got int32"),
    ],
)
def test_arguments_are_checked(arguments, message):
    """A call's arguments must be of the declared types."""
    add = build(at_server(jnp.float32), at_clients(jnp.float32))(
        lambda s, c: federated_sum(federated_map(jnp.add, (federated_broadcast(s), c)))
    )
    with pytest.raises(LaconicError, match=message):
        add(*arguments)


def test_cohort_sizes_must_agree():
    """Every argument at CLIENTS has an item for each client."""
    mean = build(at_clients(jnp.float32), at_clients(jnp.float32))(lambda x, w: federated_mean(x, w))
    with pytest.raises(ArgumentError, match=r"one item for each client, got \[2, 3\] items"):
        mean(VALUES, VALUES[:2])


def counting_sum(element):
    """A computation over sequences: the sum of all elements of all clients."""
    work = ClientWork(lambda: jnp.zeros_like(element), jnp.add, lambda carry: carry)
    return build(at_clients(SequenceOf(element)))(lambda data: federated_sum(federated_map(work, data)))


def test_a_client_takes_part_once():
    """Two clients of one id would draw the same numbers."""

    class Named(list):
        client_id = "f0001"

    with pytest.raises(ArgumentError, match=r"once, got \['f0001'\] more than once"):
        counting_sum(np.float32(0))([Named(), Named()])


def test_a_sequence_s_elements_are_checked():
    """A batch of another shape is an error and not a second compilation."""
    with pytest.raises(PlacementError, match=r"must be float32\[2\], got float32\[3\]"):
        counting_sum(np.zeros(2, np.float32))([[np.zeros(3, np.float32)]])
    with pytest.raises(ArgumentTypeError, match="must hold sequences of batches, got int"):
        counting_sum(np.zeros(2, np.float32))([3])


def test_randomness_needs_a_key():
    """There is no global random state to fall back on."""
    codec = codecs.uniform_quantization(8)
    total = build(at_clients(np.zeros(4, np.float32)))(lambda x: federated_sum(x, codec=codec))
    with pytest.raises(ArgumentError, match="needs key=, a seed that differs in each round, got None"):
        total([np.zeros(4, np.float32)])


def test_clients_without_arguments():
    """Work for clients needs to know who they are."""

    @federated_computation
    def nobody():
        return federated_sum(federated_value(1.0, CLIENTS))

    with pytest.raises(ArgumentError, match="no argument at CLIENTS says who they are"):
        nobody()


def test_an_error_names_its_client():
    """NaN is not sent, and the error says which client had it."""
    total = build(at_clients(jnp.float32))(lambda x: federated_sum(x))
    with pytest.raises(NonFiniteError, match=r"sum \(float32\) holds NaN") as caught:
        total([np.float32(1), np.float32("nan")])
    assert "at client '1'" in caught.value.__notes__
