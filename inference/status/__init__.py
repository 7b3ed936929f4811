"""State of the service: collected, checked and rendered."""
