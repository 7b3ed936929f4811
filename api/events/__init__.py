"""Event streams: changes in the task store, for clients that keep a connection open."""
