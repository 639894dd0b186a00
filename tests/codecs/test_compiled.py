"""Compiled functions of which some outputs are arguments."""

import jax
import jax.numpy as jnp
import numpy as np

from laconic import codecs
from laconic.codecs._compiled import Forwarding


def test_what_is_passed_on_is_not_copied():
    """An output that is an argument is that very array; the others are computed."""
    run = Forwarding(lambda tree, x: {"same": tree["a"], "new": tree["b"] + x, "again": [x, tree["a"]], "none": None})
    tree = {"a": jnp.arange(3.0), "b": jnp.ones(3)}
    for x in (jnp.zeros(3), jnp.full(3, 2.0)):
        outputs = run(tree, x)
        assert outputs["same"] is tree["a"]
        assert outputs["again"][0] is x
        assert outputs["again"][1] is tree["a"]
        assert outputs["none"] is None
        np.testing.assert_array_equal(outputs["new"], tree["b"] + x)


def test_what_may_change_is_copied():
    """A NumPy array that can be written to is not what comes out, one that cannot is."""
    run = Forwarding(lambda x: x)
    array = np.arange(3, dtype=np.float32)
    output = run(array)
    array.flags.writeable = False
    assert run(array) is array
    array.flags.writeable = True
    array[0] = 5
    np.testing.assert_array_equal(output, [0, 1, 2])


def test_static_arguments():
    """They choose what is computed, and are no outputs."""
    run = Forwarding(lambda x, *, is_doubled: [2 * x if is_doubled else -x, x], static_argnames="is_doubled")
    x = jnp.ones(2)
    assert float(run(x, is_doubled=True)[0][0]) == 2
    assert float(run(x, is_doubled=False)[0][0]) == -1


def test_uncompressed_tensors_are_not_copied():
    """What an identity codec takes from a contribution are the sender's own arrays; a compressed one's are not."""
    tree = {"plain": jnp.arange(4.0), "small": jnp.linspace(-1, 1, 50)}
    codec = codecs.bind(
        lambda spec: codecs.identity() if spec.name == "plain" else codecs.uniform_quantization(8),
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree),
    )
    contribution = codec.read_contribution(codec.encode_contribution(tree, key=codecs.random.key(0)))
    plain, *others = contribution.summands
    assert np.shares_memory(plain, np.asarray(tree["plain"]))
    assert all(not np.shares_memory(each, np.asarray(tree["small"])) for each in others)
