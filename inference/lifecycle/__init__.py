"""Life of a task between its acceptance and its end: enqueue, reply, dead letter."""
