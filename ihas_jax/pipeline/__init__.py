"""A run from its first stage to its last, in a folder that it resumes from."""
