"""From first weights to trained ones: what forms an update, what an update does, and the loop."""
