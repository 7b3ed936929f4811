"""What a model is (`spec`, `registry`), and the process that runs it (`predictor`, `predictor_process`)."""
