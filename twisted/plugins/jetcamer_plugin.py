"""What ``twistd`` lists. Imported by every ``twistd`` on the machine: nothing but these lines."""

from twisted.application.service import ServiceMaker

agent = ServiceMaker(
    "JetCamer agent",
    "jetcamer.agent.tap",
    "The JetCamer agent: signed metrics, logs and commands over one outbound WebSocket.",
    "jetcamer",
)
