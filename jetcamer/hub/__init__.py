"""The receiving server: verifies a fleet, knows who is here, keeps its history, commands it."""
