"""Training: from scratch and from a teacher, with the losses each in a file of its own."""
