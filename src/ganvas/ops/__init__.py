"""Small image operations on tensors: pixel conversion, per-image augmentation."""
