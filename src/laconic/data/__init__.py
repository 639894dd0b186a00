"""Federated data sets: who holds which examples, and how they are batched.

One client's examples are a dict of arrays with one row per example: `"x"` are inputs, `"y"` are labels (int32). Every
source here gives these names, images as float32 in [0, 1] with 1.0 = background, and text as codes of `characters`.
"""

from laconic.data import characters as characters
from laconic.data import digits as digits
from laconic.data import emnist as emnist
from laconic.data._batches import Batch as Batch
from laconic.data._batches import BatchedClientData as BatchedClientData
from laconic.data._batches import ClientDataset as ClientDataset
from laconic.data._batches import batches as batches
from laconic.data._client_data import ClientData as ClientData
from laconic.data._client_data import from_arrays as from_arrays
from laconic.data._client_data import from_loader as from_loader
from laconic.data._client_data import merge as merge
from laconic.data._examples import Examples as Examples
from laconic.data._fedjax_sqlite import fedjax_sqlite as fedjax_sqlite
from laconic.data._formats import load as load
from laconic.data._leaf import leaf as leaf
from laconic.data._npz import npz as npz
from laconic.data._pseudo import pseudo_clients as pseudo_clients
from laconic.data._python_sources import python_sources as python_sources
from laconic.data._statistics import Statistics as Statistics
from laconic.data._tff_sqlite import tff_sqlite as tff_sqlite
