"""What happens in the hub, told to whoever wants to hear it."""
