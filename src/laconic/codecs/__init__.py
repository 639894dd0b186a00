"""Codecs: arrays to bytes and back. Knows nothing of federated learning.

A codec is a pipeline: transform, quantize, code. `encode` and `decode` are all that most uses need; `chain` and
`branch` compose stages and coders; `bind` gives the compiled form for one model, with one-to-many and many-to-one use.
"""

from laconic.codecs import random as random
from laconic.codecs._api import decode as decode
from laconic.codecs._api import encode as encode
from laconic.codecs._api import payload_size as payload_size
from laconic.codecs._bind import CodecFor as CodecFor
from laconic.codecs._bind import bind as bind
from laconic.codecs._bound import BoundCodec as BoundCodec
from laconic.codecs._codec import Codec as Codec
from laconic.codecs._codec import branch as branch
from laconic.codecs._codec import chain as chain
from laconic.codecs._coders import Coder as Coder
from laconic.codecs._coders import FixedWidth as FixedWidth
from laconic.codecs._coders import Raw as Raw
from laconic.codecs._factories import identity as identity
from laconic.codecs._factories import uniform_quantization as uniform_quantization
from laconic.codecs._gather import Contribution as Contribution
from laconic.codecs._gather import Gather as Gather
from laconic.codecs._layout import Payload as Payload
from laconic.codecs._layout import SectionSize as SectionSize
from laconic.codecs._layout import TensorSize as TensorSize
from laconic.codecs._merging import Merge as Merge
from laconic.codecs._registry import register as register
from laconic.codecs._specs import TensorSpec as TensorSpec
from laconic.codecs._stage import Arrays as Arrays
from laconic.codecs._stage import Stage as Stage
from laconic.codecs._stages import Flatten as Flatten
from laconic.codecs._stages import Identity as Identity
from laconic.codecs._stages import UniformQuantizer as UniformQuantizer
from laconic.codecs._units import Concatenate as Concatenate
from laconic.codecs._units import Unit as Unit
