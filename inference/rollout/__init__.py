"""Configuration at runtime: desired state of the models, running workers and the models that they serve."""
