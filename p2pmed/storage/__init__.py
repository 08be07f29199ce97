"""What lasts: the node's database, its home folder, and the overlay of staged writes."""
