"""What stages have in common that change an array when it is encoded, and take what arrives as it is."""

from jaxtyping import Array

from laconic.codecs._specs import TensorSpec
from laconic.codecs._stage import Arrays
from laconic.codecs.stages._floats import FloatStage


class Passing(FloatStage):
    """Floats of one shape in and out, in the output `values`; decoding changes nothing, so that sums stay sums."""

    commutes_with_sum = True
    is_linear = True

    def decode(self, encoded: Arrays, parameters: Arrays, *, num_summands: int | Array, spec: TensorSpec) -> Array:
        del parameters, num_summands
        return encoded["values"].reshape(spec.shape).astype(spec.dtype)
