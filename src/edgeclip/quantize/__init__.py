"""int8: what the report did, and what int8 means here."""
