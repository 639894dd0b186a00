"""Run by test_device.py in a process with four devices: whether they share the work and agree with one thread."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

from laconic import codecs, data, engines, learning
from laconic.engines._mesh import ClientsMesh
from laconic.federated import ClientWork as Fold
from laconic.federated import SequenceOf, at_clients, federated_computation, federated_map, federated_sum


def check_training():
    """A perceptron, whose clients make stacks on four devices, three, and one."""
    generator = np.random.default_rng(0)
    sizes = [5, 9, 9, 14, 10, 9, 10, 30, 3, 2, 2]
    examples = {
        f"client{i}": {
            "x": generator.standard_normal((size, 6)).astype(np.float32),
            "y": generator.integers(3, size=size).astype(np.int32),
        }
        for i, size in enumerate(sizes)
    }
    cohort = data.from_arrays(examples).batched(2).cohort(examples)
    model = learning.models.perceptron(6, (8,), 3)
    codec = codecs.uniform_quantization(8)
    compression = learning.Compression("", learning.encoded_broadcast(), learning.encoded_mean(codec))
    weights = []
    for engine in (engines.local(1), engines.device(clients_per_stack=2)):
        process = learning.fed_avg(model, optax.adam(0.01), compression=compression, engine=engine)
        weights.append(process.next(process.initialize(seed=0), cohort)[0].weights)
    for ours, theirs in zip(*map(jax.tree.leaves, weights), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-3, atol=1e-4)


def check_sums():
    """Whole numbers, by cohorts of every small size; and on which devices results were."""
    seen = set()
    split = ClientsMesh.parallel

    def watched(self, function):
        seen.add(self.mesh.size)
        return split(self, function)

    ClientsMesh.parallel = watched
    work = Fold(lambda: jnp.int32(0), lambda carry, element: carry + element, lambda carry: carry)
    summed = federated_computation(at_clients(SequenceOf(jnp.int32)))(
        lambda values: (federated_sum(federated_map(work, values)), federated_map(work, values))
    )
    for count in range(1, 10):
        values = [[np.int32(i + 1)] * 3 for i in range(count)]
        result, own = summed(values, engine=engines.device(clients_per_stack=2))
        assert int(result) == 3 * count * (count + 1) // 2
        assert [int(each) for each in own] == [3 * (i + 1) for i in range(count)]
    assert seen == {1, 2, 3, 4}, seen


if __name__ == "__main__":
    assert len(jax.local_devices()) == 4
    check_training()
    check_sums()
    sys.stdout.write("agreed\n")
