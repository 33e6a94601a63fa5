"""Rewrites that change how a tower computes and not what: one a file, each proved equal by its test."""
