"""The tests of jetcamer.agent.logs."""
