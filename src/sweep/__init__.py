"""Many runs as one: what was planned, and what came of it."""
