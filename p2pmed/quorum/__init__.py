"""How many must agree, and the proof that they did."""
