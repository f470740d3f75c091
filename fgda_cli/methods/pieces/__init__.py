"""What several methods share: each piece once."""
