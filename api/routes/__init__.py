"""Routes: one blueprint for each group of paths."""
