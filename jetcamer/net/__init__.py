"""What both daemons need of the network: TLS, the WebSocket, queues, timers, JSON over HTTP."""
