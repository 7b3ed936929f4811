"""Description of a model (`spec`, `registry`), its readers (`loading`), and the process that runs it (`predictor`)."""
