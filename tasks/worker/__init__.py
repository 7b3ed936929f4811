"""Parts of a worker outside the pipeline: assembly, lease renewal, heartbeat, model reloader, redelivery."""
