"""From files to a memory-mapped pack of pixels, and from the pack to batches."""
