"""Photos for a listing: cut, redacted, encoded; what the seller states, and what to film again."""
