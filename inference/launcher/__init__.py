"""Starting everything from one command: the embedded broker, the processes, and who looks after them."""
