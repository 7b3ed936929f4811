"""Configuration at runtime: desired state of the models, workers and what they serve."""
