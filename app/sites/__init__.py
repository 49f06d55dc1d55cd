"""Sites, their purposes and texts, notice versions, and the law that applies."""
