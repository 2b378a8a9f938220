"""Talk to a running `differad-edge serve` from another process or machine.

    from differad_edge.client import InspectionClient

    with InspectionClient() as client:
        record = client.inspect(frame, product="gasket-a")    # or client.trigger(), with the server's camera
        for record in client:                                 # every result, as it is published
            print(record.sequence, record.verdict)

It needs pyzmq and numpy: images are sent as they are, and decoded and judged by the server.
"""

from __future__ import annotations

from differad_edge.client.asynchronous import AsyncInspectionClient
from differad_edge.client.blocking import InspectionClient
from differad_edge.client.stream import Gap
from differad_edge.runtime.service import Accepted

__all__ = ["Accepted", "AsyncInspectionClient", "Gap", "InspectionClient"]
