"""Code that knows one kind of destination each: a library that never imports the service."""
