"""Relay process: delivery to sinks, sweeping of deadlines and leases, maintenance of uploads."""
