"""Ranges for blocks of entries: what they are, what they cost, and what they are for."""

import numpy as np
import pytest
from codec_support import decodings

from laconic import codecs, testing
from laconic.codecs import BlockQuantizer, FixedWidth, UniformQuantizer
from laconic.errors import ArgumentError, ArgumentTypeError

X = np.random.default_rng(0).normal(size=100).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 5, 12])
def test_each_block_is_quantized_by_itself(bits):
    """Rounded to nearest, a block decodes as if it were a tensor of its own; the last one may be shorter."""
    decoded = codecs.decode(codecs.encode(X, codecs.chain(BlockQuantizer(bits, 40, stochastic=False))))
    alone = codecs.chain(UniformQuantizer(bits, stochastic=False))
    for start in (0, 40, 80):
        block = X[start : start + 40]
        np.testing.assert_allclose(decoded[start : start + 40], codecs.decode(codecs.encode(block, alone)), rtol=1e-6)


def test_what_it_costs():
    """Besides the codes, two floats for each block."""
    payload, _ = codecs.bind(codecs.chain(BlockQuantizer(4, 30), FixedWidth(4)), X).encode(X, key=codecs.random.key(0))
    assert len(payload) == 8 + 50 + 4 * 8


def test_one_large_block_does_not_spoil_the_others():
    """The error is each block's own: relative to the block it is the same, however its neighbours are scaled."""
    x = np.random.default_rng(1).normal(size=(8, 512)).astype(np.float32) * np.float32(10.0) ** np.arange(8)[:, None]
    decoded = codecs.decode(codecs.encode(x, codecs.chain(BlockQuantizer(4, 512)), seed=0))
    nmse = ((decoded - x) ** 2).sum(axis=1) / (x**2).sum(axis=1)
    assert nmse.max() < 0.04
    one_range = codecs.decode(codecs.encode(x, codecs.uniform_quantization(4), seed=0))
    assert (((one_range - x) ** 2).sum(axis=1) / (x**2).sum(axis=1)).max() > 1e6


def test_hadamard_quantization_of_a_model_of_several_scales():
    """What tensors of very different scales lose to one range for all, blocks of their own do not."""
    generator = np.random.default_rng(2)
    x = np.concatenate([generator.standard_t(2, 2**16) * 1e-3, generator.normal(size=500)]).astype(np.float32)
    decoded = codecs.decode(codecs.encode(x, codecs.hadamard_quantization(2), seed=0))
    assert np.sum((decoded[: 2**16] - x[: 2**16]) ** 2) < 3 * np.sum(x[: 2**16] ** 2)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_unbiased(scale):
    """Over 400 keys no entry's mean is further off than Hoeffding's bound allows with chance 1e-9, nor is all's."""
    x = X * np.float32(scale)
    decoded = decodings(BlockQuantizer(2, 16), x, 400) / scale
    errors = decoded.mean(axis=0) - x.astype(np.float64) / scale
    step = (X.max() - X.min()) / 3
    assert np.all(np.abs(errors) <= step * np.sqrt(np.log(2 / 1e-9) / (2 * 400)) + 1e-5)
    assert abs(errors.mean()) <= step * np.sqrt(np.log(2 / 1e-9) / (2 * 400 * X.size)) + 1e-5


def test_kit():
    """The test kit finds nothing against it."""
    testing.check_stage(BlockQuantizer(3, 8), inputs=[X[:20], np.zeros(9, np.float32), X[:0]], other_process=False)


def test_refusals():
    """Wrong arguments and integers are errors that say what is expected."""
    for block_size in (0, -1):
        with pytest.raises(ArgumentError, match="block_size must be 1 or more"):
            BlockQuantizer(4, block_size)
    with pytest.raises(ArgumentTypeError, match=r"block_size must be an integer, got 2\.5"):
        BlockQuantizer(4, 2.5)
    with pytest.raises(ArgumentTypeError, match="block_quantizer takes floating-point"):
        codecs.bind(codecs.chain(BlockQuantizer()), np.arange(3))
