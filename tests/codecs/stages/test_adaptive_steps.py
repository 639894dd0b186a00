"""Steps that the server sets: they reach error and rate, vote, decay, and commute; and the adaptive clip."""

import numpy as np
import pytest
from codec_support import gathered

from laconic import codecs, testing
from laconic.codecs import AdaptiveClip, AdaptiveDithered, AdaptiveStochasticGrid
from laconic.errors import ArgumentError

SIZE = 20_000


def updates(round_number, cohort=4):
    """Clients' updates, which shrink from round to round."""
    generator = np.random.default_rng(round_number)
    return [generator.laplace(size=SIZE).astype(np.float32) * np.float32(0.9**round_number) for _ in range(cohort)]


def run(codec, rounds=12):
    """Per round: the error of each client's encoding over its |x|^2, its rate, and the server's step."""
    bound = codecs.bind(codec, np.zeros(SIZE, np.float32))
    state, history = bound.initial_state(), []
    for round_number in range(rounds):
        xs, gather, rates = updates(round_number), bound.gather(state), []
        parameters = bound.encode_parameters(state)
        for client, x in enumerate(xs):
            key = codecs.random.derive(codecs.random.key(1), round_number, client)
            payload = bound.encode_contribution(x, key=key, parameters=parameters)
            gather.add(payload)
            rates.append(8 * sum(payload.unit_sizes) / SIZE)
        step = float(state[0]["self"])
        total, state = gather.result()
        error = np.sum((np.asarray(total) - np.sum(xs, axis=0)) ** 2) / sum(np.sum(x**2) for x in xs)
        history.append((error, np.mean(rates), step))
    return np.array(history)


@pytest.mark.parametrize("quantizer", ["dithered", "stochastic_grid"])
@pytest.mark.parametrize("initial_step", [None, 30.0])
@pytest.mark.parametrize("nmse", [0.1, 3.0])
def test_holds_an_error(quantizer, initial_step, nmse):
    """From round three on the error is what was asked for, though the updates keep shrinking by a tenth a round."""
    history = run(codecs.adaptive(quantizer, nmse=nmse, initial_step=initial_step))
    # The step is that of the round before, whose updates were larger by a ninth.
    np.testing.assert_allclose(history[4:, 0], nmse, rtol=0.3)


@pytest.mark.parametrize(("quantizer", "rate"), [("dithered", 2.0), ("stochastic_grid", 0.3)])
@pytest.mark.parametrize("initial_step", [None, 10.0])
def test_holds_a_rate(quantizer, rate, initial_step):
    """The rate is held by the bytes that the server counts; nothing is searched for at the clients."""
    codec = codecs.adaptive(quantizer, bits_per_parameter=rate, initial_step=initial_step)
    assert not codec.is_searched
    np.testing.assert_allclose(run(codec)[4:, 1], rate, rtol=0.13)


def test_votes_find_the_cheapest_step():
    """With votes the step goes to where error plus penalty times rate is least, from either side."""
    ends = [run(codecs.adaptive(rate_penalty=0.05, initial_step=step), 20)[-1, 2] for step in (0.01, 3.0)]
    assert 0.5 <= ends[0] / ends[1] <= 2
    dearer = run(codecs.adaptive(rate_penalty=0.5, initial_step=0.1), 20)[-1, 2]
    assert dearer > 1.9 * ends[0]


def test_schedule():
    """`decay` multiplies the step after each round."""
    steps = run(codecs.adaptive(decay=0.5, initial_step=2.0), 5)[:, 2]
    np.testing.assert_allclose(steps, 2.0 * 0.5 ** np.arange(5))


@pytest.mark.parametrize("stage", [AdaptiveDithered, AdaptiveStochasticGrid])
def test_kit(stage):
    """The test kit finds nothing against the adaptive stages."""
    x = np.random.default_rng(0).normal(size=30).astype(np.float32)
    testing.check_stage(stage(initial_step=0.5, nmse=0.1), inputs=[x, np.zeros_like(x)], other_process=False)
    testing.check_stage(stage(bits_per_parameter=1.0), inputs=[x, x * 1e-30], other_process=False)


def test_a_step_without_news_stays():
    """Updates of zeros neither move the step nor make it NaN."""
    bound = codecs.bind(codecs.adaptive(nmse=0.1, initial_step=0.5), np.zeros(10, np.float32))
    state = gathered(bound, [np.zeros(10, np.float32)] * 3, state=bound.initial_state())[1]
    assert float(state[0]["self"]) == pytest.approx(0.5)


def test_values_beyond_the_common_step():
    """A common step that is far too small is an error that says so."""
    bound = codecs.bind(codecs.adaptive(nmse=0.1, initial_step=1e-6), np.zeros(3, np.float32))
    with pytest.raises(ArgumentError, match="beyond the range"):
        bound.encode_contribution(np.float32([0, 0, 100.0]), key=codecs.random.key(0))


def test_wrong_arguments():
    """Exactly one aim, a known quantizer, and a first step to decay from."""
    for arguments in (
        {},
        {"nmse": 1.0, "decay": 0.5},
        {"decay": 0.5},
        {"nmse": -1.0},
        {"nmse": 1.0, "initial_step": 0.0},
    ):
        with pytest.raises(ArgumentError):
            codecs.adaptive(**arguments)
    with pytest.raises(ArgumentError, match="quantizer must be one of 'dithered', 'stochastic_grid', got 'eden'"):
        codecs.adaptive("eden", nmse=1.0)


def test_clip_follows_a_quantile():
    """The clipping bound comes to rest near the quantile of the clients' norms; larger updates are scaled to it."""
    generator = np.random.default_rng(0)
    bound = codecs.bind(codecs.chain(AdaptiveClip(quantile=0.5, rate=0.3)), np.zeros(8, np.float32))
    state = bound.initial_state()
    for _ in range(60):
        norms = generator.uniform(2, 4, 20)
        xs = [np.full(8, norm / np.sqrt(8), np.float32) for norm in norms]
        _, state = gathered(bound, xs, state=state)
    limit = float(state[0]["self"])
    assert limit == pytest.approx(3, abs=0.25)
    x = np.full(8, 100.0, np.float32)
    total, _ = gathered(bound, [x], state=state)
    assert np.linalg.norm(total) == pytest.approx(limit, rel=1e-5)
    testing.check_stage(AdaptiveClip(), inputs=x, other_process=False)
    with pytest.raises(ArgumentError, match="quantile"):
        AdaptiveClip(quantile=1.5)
