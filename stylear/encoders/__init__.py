"""Frozen encoders: CLIP, texture statistics, segmentation."""
