"""The training loop, its state and its maths; prints nothing, writes nothing."""
