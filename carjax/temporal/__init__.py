"""What neighbouring frames know of each other: a filter, a consensus, and sequence models."""
