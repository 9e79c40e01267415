"""What a run shows: grids, curves, GIF and MP4, the log."""
