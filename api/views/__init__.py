"""Answers: documents, problems, URLs."""
