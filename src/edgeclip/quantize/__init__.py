"""int8: what the paper did, and what int8 means here."""
