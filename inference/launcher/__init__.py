"""Start of the whole service by one command: the embedded broker, the processes, and their supervision."""
