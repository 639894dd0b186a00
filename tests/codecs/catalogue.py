"""One of each ready-made codec, small enough to be tried on anything."""

from laconic import codecs

LOSSLESS = {
    "identity": codecs.identity(),
    "concatenate": codecs.concatenate(codecs.identity()),
    "shuffled_zstd": codecs.chain(codecs.Identity(), codecs.ShuffledZstd()),
}
"""Any dtype, bit for bit."""

LOSSY = {
    "cast": codecs.cast("bfloat16"),
    "uniform_quantization": codecs.uniform_quantization(4),
    "uniform_entropy": codecs.uniform_quantization(8, packing="entropy"),
    "hadamard_quantization": codecs.hadamard_quantization(4),
    "kashin_quantization": codecs.kashin_quantization(4),
    "per_channel_quantization": codecs.per_channel_quantization(4),
    "dithered_step": codecs.dithered(step=0.125),
    "dithered_nmse": codecs.dithered(nmse=0.05),
    "dithered_e8": codecs.dithered(nmse=0.05, lattice="E8"),
    "stochastic_grid_nmse": codecs.stochastic_grid(nmse=2.0),
    "stochastic_grid_rms": codecs.stochastic_grid(step_in_rms=4.0),
    "lloyd_max": codecs.lloyd_max(2),
    "eden_1": codecs.eden(1),
    "eden_fraction": codecs.eden(1.5),
    "eden_sparse": codecs.eden(0.5),
    "drive": codecs.drive(),
    "qsgd": codecs.qsgd(levels=7, bucket_size=16),
    "ternary": codecs.ternary(),
    "sign": codecs.sign(),
    "natural": codecs.natural(),
    "top_k": codecs.top_k(fraction=0.1),
    "random_k": codecs.random_k(fraction=0.25),
    "threshold": codecs.threshold(0.5),
    "sparse_ternary": codecs.sparse_ternary(fraction=0.1),
    "low_rank": codecs.low_rank(1),
    "karhunen_loeve": codecs.karhunen_loeve(0.25, rank=2),
    "adaptive": codecs.adaptive(nmse=0.1),
    "error_feedback": codecs.error_feedback(codecs.sign()),
    "auto_rate": codecs.auto(bits_per_parameter=2.0),
    "auto_nmse": codecs.auto(nmse=0.1),
}
"""Floats only, through bytes to any receiver."""

ONE_RECEIVER = {
    "count_sketch": codecs.count_sketch(),
    "ef21": codecs.error_feedback(codecs.sign(), kind="ef21", num_clients=4),
}
"""Floats only, for contributions to a receiver that remembers."""

NAMES = (
    *("identity", "cast", "uniform_quantization", "hadamard_quantization", "kashin_quantization"),
    *("per_channel_quantization", "dithered", "stochastic_grid", "lloyd_max", "eden", "drive", "qsgd", "ternary"),
    *("sign", "natural", "top_k", "random_k", "threshold", "sparse_ternary", "low_rank", "count_sketch"),
    "karhunen_loeve",
    *("error_feedback", "adaptive", "auto", "chain", "concatenate"),
)
"""The factories that the package promises to have."""
