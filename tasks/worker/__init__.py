"""Parts of a worker around the pipeline: assembly, heartbeat, model reloader, redelivery."""
