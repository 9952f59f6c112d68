"""What both daemons need of the process they run in: log output, time, the service manager."""
