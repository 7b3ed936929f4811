"""The channel that claims messages from Redis."""
