"""How author logs spread: membership, broadcast, anti-entropy, and their conductor."""
