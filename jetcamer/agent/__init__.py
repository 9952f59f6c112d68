"""The agent: one outbound WebSocket from a customer's server.

Importing this package turns Autobahn's native masking and UTF-8 helpers off, unless the operator
has chosen: an agent sends a few small frames a minute, and the helpers cost 1.3 MB of memory.
"""

import os

os.environ.setdefault("AUTOBAHN_USE_NVX", "0")
