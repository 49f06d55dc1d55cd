"""Keys and their rotation, keyed digests, sealing, the key store, signing."""
