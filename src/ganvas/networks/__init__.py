"""The networks: z to images (generators) and images to logits (discriminators)."""
