"""What `describe` says of a payload."""

import dataclasses
import math

import numpy as np

from laconic.codecs._layout import SectionSize


@dataclasses.dataclass(frozen=True)
class TensorContents:
    """One tensor of a payload.

    Attributes:
      name: its path in the tree.
      shape: its shape.
      dtype: its dtype.
      codec: its codec, stage by stage.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    codec: str


@dataclasses.dataclass(frozen=True)
class Contents:
    """What is in a payload, in bytes. All parts add up to `nbytes`.

    Attributes:
      nbytes: the payload's length.
      framing: magic, version and checksum.
      description: of codecs, tree and tensors.
      key: that both ends draw from, 8 or 0.
      tensors: what is decoded from it.
      sections: what is coded, in the order in which it travels.
    """

    nbytes: int
    framing: int
    description: int
    key: int
    tensors: tuple[TensorContents, ...]
    sections: tuple[SectionSize, ...]

    @property
    def num_parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def bits_per_parameter(self) -> float:
        """The whole payload's rate; NaN if it holds no element."""
        return 8 * self.nbytes / self.num_parameters if self.num_parameters else math.nan

    def __str__(self) -> str:
        rows = [("section", "coder", "elements", "bytes", "bits each")]
        for section in self.sections:
            rate = f"{8 * section.nbytes / section.elements:.3f}" if section.elements else ""
            rows.append((section.name or "array", section.coder, f"{section.elements:,}", f"{section.nbytes:,}", rate))
        rest = {"framing": self.framing, "description": self.description, "key": self.key}
        rows += [(name, "", "", f"{nbytes:,}", "") for name, nbytes in rest.items() if nbytes]
        rows.append(("total", "", f"{self.num_parameters:,}", f"{self.nbytes:,}", f"{self.bits_per_parameter:.3f}"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(cells)
            ).rstrip()
            for cells in ([*zip(row, widths, strict=True)] for row in rows)
        ]
        tensors = [
            f"{tensor.name or 'array'}: {tensor.dtype.name}[{','.join(map(str, tensor.shape))}], {tensor.codec}"
            for tensor in self.tensors
        ]
        return "\n".join([*tensors, "", *lines])
