"""Who is near: advertised records and the book of peers. Hints only; the handshake decides."""
