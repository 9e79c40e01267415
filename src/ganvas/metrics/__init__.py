"""How good the images are: features, the numbers made of them, their floors and intervals, copies and health."""
