"""Parts of Flower's process: its login, the lengths of queues, and its variables."""
