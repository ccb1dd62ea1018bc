"""Frozen encoders: CLIP, CSD, DINOv2, texture, aesthetics, segmentation."""
