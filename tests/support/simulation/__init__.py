"""A fleet of agents and a hub in one process, on simulated time and a simulated network.

Everything above the sockets is the project's own code; `clock`, `network` and `transport` stand for
the machines and the wires, `agents` and `hub` put the two sides together, `scenario` draws what
happens, to which an `eavesdropper` adds his part; `observer` and `checks` say what is wrong.
"""
