"""The local HTTP face: operations over a socket that only this machine's user reaches."""
