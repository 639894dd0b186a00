"""Makes an environment for each peer.

    python -m benchmarks.peers.setup [PEER ...] [--environments FOLDER] [--python 3.9=PATH]

They go below benchmarks/peers/.peers, which git ignores, or the folder that is named; about 5 GB, and some minutes. TFF
runs on Python 3.9 and FedJAX on Python 3.10: interpreters of these versions are looked for on the path and among
pyenv's. A peer that cannot be installed is named with the reason, here and in the table, and hinders nothing.
"""

import argparse
from pathlib import Path

from benchmarks.peers.environments import FOLDER, environments


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", help="peers to set up; all of them if left out")
    parser.add_argument("--environments", type=Path, default=FOLDER, help="where to make them")
    parser.add_argument("--python", nargs="*", default=[], metavar="VERSION=PATH", help="interpreters to take")
    arguments = parser.parse_args()
    known = environments(arguments.environments.absolute())
    if unknown := sorted(set(arguments.peers) - set(known)):
        parser.error(f"peers are {', '.join(known)}; got {', '.join(unknown)}")
    interpreters = {version: Path(path) for version, _, path in (each.partition("=") for each in arguments.python)}
    for name in arguments.peers or known:
        print(f"{name}: {known[name].make(interpreters) or 'ready'}", flush=True)


if __name__ == "__main__":
    main()
