"""What ``twistd`` lists. Imported by every ``twistd`` on the machine: nothing but these lines."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

agent = ServiceMaker(
    "JetCamer agent",
    "jetcamer.agent.tap",
    "The JetCamer agent: signed metrics, logs and commands over one outbound WebSocket.",
    "jetcamer",
)

hub = ServiceMaker(
    "JetCamer hub",
    "jetcamer.hub.tap",
    "The JetCamer hub: receives, verifies, stores and commands a fleet of agents.",
    "jetcamer-hub",
)

reactor = Reactor(
    "jetcamer",
    "jetcamer.daemon.epoll",
    "epoll(7) with a shorter way to what is read, for thousands of connections (Linux).",
)
