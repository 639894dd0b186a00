"""What stages have in common that change an array when it is encoded, and take what arrives as it is."""

from jaxtyping import Array

from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays, Stage
from laconic.codecs.stages._rounding import check_float


class Passing(Stage):
    """Floats of one shape in and out, in the output `values`; decoding changes nothing, so that sums stay sums."""

    @property
    def commutes_with_sum(self) -> bool:
        return True

    @property
    def is_linear(self) -> bool:
        return True

    def check(self, spec: TensorSpec) -> None:
        check_float(self, spec)

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return encoded["values"].reshape(spec.shape).astype(spec.dtype)
