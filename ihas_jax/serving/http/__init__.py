"""A bundle as an HTTP service; it needs the packages of the extra `serve`."""
