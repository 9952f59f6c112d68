"""JetCamer: an agent for a fleet of Linux servers, and the hub it reports to."""

__all__ = ["__version__"]

#: The one place where the version is written. The Go agent ends at 4.
__version__ = "5.0.0"
