"""Keys of the API: their text, the file and the record store that hold them, and the look-up."""
