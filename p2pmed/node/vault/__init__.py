"""What holds the keys to patients' records, beside the node and apart from it."""
