"""Models: descriptions (`spec`, `registry`), files (`files`), and the process that runs them (`predictor`)."""
