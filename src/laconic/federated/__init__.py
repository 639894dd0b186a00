"""Federated computations: one program, many engines.

Values are placed at SERVER or at CLIENTS, and the types say so. `federated_computation` traces a function of placed
values; what crosses between the placements is encoded, decoded and counted in one place.
"""

from laconic.codecs import Devices as Devices
from laconic.federated._client_work import ClientWork as ClientWork
from laconic.federated._computation import Computation as Computation
from laconic.federated._computation import Run as Run
from laconic.federated._computation import federated_computation as federated_computation
from laconic.federated._graph import Value as Value
from laconic.federated._intrinsics import federated_aggregate as federated_aggregate
from laconic.federated._intrinsics import federated_broadcast as federated_broadcast
from laconic.federated._intrinsics import federated_client_key as federated_client_key
from laconic.federated._intrinsics import federated_held as federated_held
from laconic.federated._intrinsics import federated_map as federated_map
from laconic.federated._intrinsics import federated_max as federated_max
from laconic.federated._intrinsics import federated_mean as federated_mean
from laconic.federated._intrinsics import federated_min as federated_min
from laconic.federated._intrinsics import federated_sum as federated_sum
from laconic.federated._intrinsics import federated_value as federated_value
from laconic.federated._intrinsics import federated_zip as federated_zip
from laconic.federated._pass import Client as Client
from laconic.federated._pass import ClientPass as ClientPass
from laconic.federated._pass import Engine as Engine
from laconic.federated._pass import PassResult as PassResult
from laconic.federated._pass import ReferenceEngine as ReferenceEngine
from laconic.federated._portable import PortableClient as PortableClient
from laconic.federated._portable import PortablePass as PortablePass
from laconic.federated._reduction import ClientOutput as ClientOutput
from laconic.federated._reduction import Part as Part
from laconic.federated._reduction import Parts as Parts
from laconic.federated._traffic import Traffic as Traffic
from laconic.federated._traffic import TrafficEntry as TrafficEntry
from laconic.federated._traffic import format_bytes as format_bytes
from laconic.federated._traffic import format_tff_bits as format_tff_bits
from laconic.federated._types import CLIENTS as CLIENTS
from laconic.federated._types import SERVER as SERVER
from laconic.federated._types import FederatedType as FederatedType
from laconic.federated._types import MemberType as MemberType
from laconic.federated._types import Placement as Placement
from laconic.federated._types import SequenceOf as SequenceOf
from laconic.federated._types import SequenceType as SequenceType
from laconic.federated._types import at_clients as at_clients
from laconic.federated._types import at_server as at_server
from laconic.federated._types import member_type as member_type
