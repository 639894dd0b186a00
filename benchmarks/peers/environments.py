"""The peers' environments."""

from pathlib import Path

from benchmarks._environments import Environment

FOLDER = Path(__file__).parent / ".peers"
MADE_BY = "python -m benchmarks.peers.setup"


def environments(folder: Path = FOLDER) -> dict[str, Environment]:
    """The peers' environments below a folder, by name."""
    made = (
        Environment(
            name="TFF",
            folder=folder / "tff",
            made_by=MADE_BY,
            python_version="3.9",
            requirements=(
                "tensorflow==2.8.4",
                "tensorflow-probability==0.16.0",
                "tensorflow-model-optimization==0.7.2",
                "numpy<1.24",
                "protobuf<3.21",
                # TFF wants jaxlib 0.1.76, which is gone. It only imports JAX, for which this one does.
                "jax==0.4.13",
                "jaxlib==0.4.13",
                "attrs~=21.2.0",
                "cachetools~=3.1.1",
                "dm-tree~=0.1.1",
                "farmhashpy~=0.4.0",
                "mpmath",
                "portpicker~=1.3.1",
                "semantic-version~=2.8.5",
                "tqdm~=4.28.1",
            ),
            without_dependencies=("tensorflow-privacy==0.7.3", "tensorflow-federated==0.20.0"),
            check="import tensorflow_federated",
            variables=(("TF_CPP_MIN_LOG_LEVEL", "3"), ("CUDA_VISIBLE_DEVICES", "")),
        ),
        Environment(
            name="FedJAX",
            folder=folder / "fedjax",
            made_by=MADE_BY,
            python_version="3.10",
            requirements=("fedjax==0.0.17", "jax==0.6.2", "jaxlib==0.6.2"),
            check="import fedjax",
            variables=(("JAX_PLATFORMS", "cpu"),),
        ),
        Environment(
            name="pfl",
            folder=folder / "pfl",
            made_by=MADE_BY,
            requirements=("pfl==0.6.0", "torch==2.13.0"),
            check="import pfl.model.pytorch",
            variables=(("CUDA_VISIBLE_DEVICES", ""),),
        ),
        Environment(
            name="Flower",
            folder=folder / "flower",
            made_by=MADE_BY,
            requirements=("flwr[simulation]==1.41.0", "torch==2.13.0"),
            check="import ray, torch, flwr.simulation",
            variables=(("CUDA_VISIBLE_DEVICES", ""), ("FLWR_TELEMETRY_ENABLED", "0"), ("RAY_USAGE_STATS_ENABLED", "0")),
        ),
    )
    return {environment.name: environment for environment in made}
