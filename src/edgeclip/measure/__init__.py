"""Measuring: any source as an encoder, the process that times it, rows of a table, recall, inspection."""
