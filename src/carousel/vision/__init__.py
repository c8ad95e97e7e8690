"""Pictures in, features out: the photo reader, the image encoder and the cache of what it computed."""
