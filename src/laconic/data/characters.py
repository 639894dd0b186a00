"""Text as small integers: printable ASCII, the new line, and one code for everything else."""

import numpy as np
from jaxtyping import Int, Int32

from laconic.errors import ArgumentError

_UNKNOWN = "\N{REPLACEMENT CHARACTER}"

VOCABULARY = _UNKNOWN + "\n" + "".join(map(chr, range(ord(" "), ord("~") + 1)))
"""The 97 characters, each at the position that is its code; 0 stands for all that are not here."""

_CODES = np.zeros(128, np.int32)
_CODES[[ord(character) for character in VOCABULARY[1:]]] = np.arange(1, len(VOCABULARY))


def encode(text: str) -> Int32[np.ndarray, " characters"]:
    """The code of each character of the text."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _CODES[np.minimum(points, len(_CODES) - 1)]  # the last of them, the control character DEL, is unknown, too


def decode(codes: Int[np.ndarray, " characters"]) -> str:
    """The text of these codes; what was unknown is the replacement character.

    Raises:
      ArgumentError: a code is not one of the vocabulary's.
    """
    listed = np.asarray(codes).tolist()
    if listed and (min(listed) < 0 or max(listed) >= len(VOCABULARY)):
        raise ArgumentError(
            f"codes must lie in 0..{len(VOCABULARY) - 1}, got values from {min(listed)} to {max(listed)}"
        )
    return "".join(VOCABULARY[code] for code in listed)
