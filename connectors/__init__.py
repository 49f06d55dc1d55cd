"""Code that knows one kind of destination each: a library of its own that never imports the service."""
