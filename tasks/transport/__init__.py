"""Channel of kombu that claims messages from Redis."""
