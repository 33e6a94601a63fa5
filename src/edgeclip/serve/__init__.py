"""A bundle and an index over HTTP: the interfaces that other programs speak already, and a page to search by."""
