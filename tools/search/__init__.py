"""Search: rank the images of one's own folder by their similarity to query images."""
