"""Description of a model file by its content: shapes, types, classes, labels and scaling. See docs/models.md.

`process` reads a file in a process that ends, since the libraries that read it are large and the file may be hostile;
`description` makes the document of a `model.yaml` from the result, and from the choices of a user.
"""
