"""The hub's HTTP API: JSON, events and figures, for people, programs and Prometheus."""
