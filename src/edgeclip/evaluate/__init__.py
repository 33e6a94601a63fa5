"""Measurements: retrieval, latency, footprint. They see arrays and callables, never models."""
