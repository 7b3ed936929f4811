"""The console: a page for browsers below /ui/, served by the API itself. Its scripts use the API as other clients do."""
