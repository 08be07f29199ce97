"""What staff and patients do with records on a node: cards, consent, search, linking."""
