"""Engines: where a federated computation's client work runs."""

from laconic.engines._auto import auto as auto
from laconic.engines._device import DeviceEngine as DeviceEngine
from laconic.engines._device import device as device
from laconic.engines._local import LocalEngine as LocalEngine
from laconic.engines._local import local as local
from laconic.engines._ray import RayEngine as RayEngine
from laconic.engines._ray import ray as ray
from laconic.engines._stacks import Stack as Stack
