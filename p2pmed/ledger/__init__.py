"""What was decided: transactions, author logs, blocks, the chain and its state."""
