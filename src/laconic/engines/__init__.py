"""Engines: where a federated computation's client work runs."""

from laconic.engines._local import LocalEngine as LocalEngine
from laconic.engines._local import local as local
