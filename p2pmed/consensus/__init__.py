"""Who decides the order: BFT and Raft behind one interface (``consensus/interface.py``)."""
