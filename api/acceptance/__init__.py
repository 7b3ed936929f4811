"""Steps from a form to an accepted task: validate, admit, store, enqueue."""
