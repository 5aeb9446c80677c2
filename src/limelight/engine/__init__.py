"""The paths that compute attention. Code for a single backend lives here and nowhere else."""
