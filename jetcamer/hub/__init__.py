"""The receiving server. So far a first slice: it verifies a fleet, talks to it, stores nothing."""
