"""Values that other implementations gave, recorded by scripts that run in environments of their own."""
