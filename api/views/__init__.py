"""Contents of answers: documents, problems, URLs."""
