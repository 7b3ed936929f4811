"""Parts of a worker outside the pipeline: assembly, heartbeat, model reloader, redelivery."""
