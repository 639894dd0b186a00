"""Peers' environments, and what the peers do by themselves.

    python -m benchmarks.codecs.peers setup [PEER ...]
    python -m benchmarks.codecs.peers list

`setup` makes an environment for each peer below benchmarks/codecs/.peers, which git ignores, and takes a few minutes
and about 3 GB. A peer that cannot be installed is named with the reason, here and in the tables, and hinders nothing.
benchmarks.codecs.rate_distortion measures the peers along with Laconic's codecs.
"""

import argparse

from benchmarks.codecs.peers.environments import PEERS, setup


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("setup", "list"))
    parser.add_argument("peers", nargs="*", help="peers to set up; all of them if left out")
    arguments = parser.parse_args()
    names = arguments.peers or [peer.name for peer in PEERS]
    unknown = sorted(set(names) - {peer.name for peer in PEERS})
    if unknown:
        parser.error(f"peers are {', '.join(peer.name for peer in PEERS)}; got {', '.join(unknown)}")
    for peer in (each for each in PEERS if each.name in names):
        trouble = setup(peer) if arguments.command == "setup" else peer.trouble()
        print(f"{peer.name}: {trouble or 'ready'}", flush=True)


if __name__ == "__main__":
    main()
