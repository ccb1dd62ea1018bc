"""Styles made of pieces, threads, clay or light: (picture, look, chance) -> picture, as in `inks`."""

from __future__ import annotations

import numpy as np

from stylear.mini.brushes import (
    WHITE,
    Field,
    Rng,
    blur,
    cells,
    colour,
    figure,
    fill_cells,
    flat,
    grain,
    grid,
    light,
    lines,
    mix,
    posterise,
    ramp,
    saturate,
    scale,
    tinted_ground,
    voronoi,
)


def mosaic(p: Field, look: Rng, chance: Rng) -> Field:
    ground, grout = (
        colour(look, (0, 1), (0.15, 0.5), (0.6, 0.95)),
        colour(look, (0, 1), (0, 0.3), (0.05, 0.95)),
    )
    size = round(float(look.choice([5, 6, 7]) * scale(p)))
    tile, u, v = cells(tinted_ground(p, ground), size)
    tone = cells(1 + 0.14 * grain(p, chance, 0.3)[..., None].repeat(3, 2), size)[0]
    edge = np.maximum(np.abs(u), np.abs(v)) > (1 - 2.2 / size * scale(p) * 0.9)
    return mix(
        np.clip(saturate(tile, 1.3) * (0.3 + 0.7 * tone), 0, 1),
        flat(p, grout),
        edge.astype(np.float32),
    )


def cross_stitch(p: Field, look: Rng, chance: Rng) -> Field:
    linen = colour(look, (0, 1), (0.05, 0.35), (0.6, 0.95))
    size = round(float(look.choice([4, 5]) * scale(p)))
    thread, u, v = cells(tinted_ground(p, linen), size)
    mask, _, _ = cells(figure(p)[..., None].repeat(3, 2), size)
    cross = np.minimum(np.abs(u - v), np.abs(u + v)) < 0.62
    ground = flat(p, linen * 0.82)
    stitched = mix(ground, saturate(thread, 1.35), cross * (0.15 + 0.85 * (mask[..., 0] > 0.4)))
    return np.clip(stitched * (0.92 + 0.1 * (u - v)[..., None] * 0.5), 0, 1)


def knit(p: Field, look: Rng, chance: Rng) -> Field:
    wool = colour(look, (0, 1), (0.2, 0.7), (0.35, 0.95))
    size = round(5 * scale(p))
    yarn, u, v = cells(tinted_ground(p, wool), size)
    vee = np.abs(v - 0.9 * np.abs(u) + 0.25)
    return np.clip(
        saturate(yarn, 1.15)
        * (1.12 - 0.5 * np.clip(vee, 0, 1) - 0.25 * (np.abs(u) < 0.16))[..., None],
        0,
        1,
    )


def low_poly(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0, 1), (0.2, 0.6), (0.5, 0.95))
    labels, _ = voronoi(p, chance, int(look.integers(70, 120)))
    a, b = grid(p, float(look.uniform(0, np.pi)))
    half = ((a + b).astype(int) // int(7 * scale(p)) + (a - b).astype(int) // int(9 * scale(p))) % 2
    facets = labels * 2 + half
    shade = chance.uniform(-0.13, 0.13, (facets.max() + 1, 1)).astype(np.float32)
    return np.clip(
        saturate(fill_cells(tinted_ground(p, ground), facets), 1.25) + shade[facets], 0, 1
    )


def stained_glass(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0.5, 0.75), (0.4, 0.8), (0.5, 0.9))
    labels, border = voronoi(p, chance, 64)
    base = tinted_ground(p, ground)
    glass = saturate(fill_cells(posterise(base, 5), labels) * 0.45 + posterise(base, 4) * 0.55, 1.8)
    lead = np.maximum(np.clip(1.5 - border / scale(p) * 1.5, 0, 1), lines(p, 0.9, 2.4))
    shine = 1 + 0.2 * grain(p, chance, 4)
    return mix(np.clip(glass * shine[..., None], 0, 1), flat(p, np.full(3, 0.06, np.float32)), lead)


def batik(p: Field, look: Rng, chance: Rng) -> Field:
    dye, wax = (
        colour(look, (0.55, 0.72), (0.6, 0.95), (0.25, 0.5)),
        colour(look, (0.08, 0.14), (0.2, 0.5), (0.85, 0.97)),
    )
    brown = colour(look, (0.03, 0.08), (0.6, 0.9), (0.35, 0.6))
    tone = blur(light(p), 0.9 * scale(p))
    body = mix(flat(p, wax), flat(p, brown), np.clip((0.62 - tone) * 6, 0, 1))
    crack = (np.abs(grain(p, chance, 2.5)) < 0.09).astype(np.float32)
    a, b = grid(p, np.pi / 4)
    motif = (
        (np.cos(2 * np.pi * a / (9 * scale(p))) * np.cos(2 * np.pi * b / (9 * scale(p)))) > 0.72
    ).astype(np.float32)
    ground = mix(flat(p, dye), flat(p, wax), motif * 0.8)
    out = mix(ground, body, (figure(p) > 0.5).astype(np.float32))
    return mix(mix(out, flat(p, dye * 0.6), lines(p, 0.9, 2.2)), flat(p, dye), crack * 0.7)


def pottery(p: Field, look: Rng, chance: Rng) -> Field:
    clay = colour(look, (0.03, 0.09), (0.5, 0.8), (0.6, 0.9))
    slip = colour(look, (0.02, 0.1), (0.2, 0.6), (0.05, 0.18))
    tone = blur(light(p), 0.7 * scale(p))
    black = np.clip((0.78 - tone) * 7, 0, 1) * (1 - lines(p, 0.8, 1.6) * 0.85)
    _, b = grid(p, 0.0)
    throw = 1 + 0.06 * np.cos(2 * np.pi * b / (5 * scale(p))) + 0.05 * grain(p, chance, 1.2)
    key = ((b // (3 * scale(p))).astype(int) % 20 == 0).astype(np.float32) * (1 - figure(p))
    return np.clip(
        mix(flat(p, clay) * throw[..., None], flat(p, slip), np.maximum(black, key)), 0, 1
    )


def led(p: Field, look: Rng, chance: Rng) -> Field:
    panel, tint = (
        colour(look, (0, 1), (0.1, 0.6), (0.03, 0.14)),
        colour(look, (0, 1), (0.1, 0.9), (1, 1)),
    )
    size = round(float(look.choice([4, 5]) * scale(p)))
    lamp, u, v = cells(tinted_ground(p, panel + 0.08), size)
    strength = np.clip(1.25 - (u**2 + v**2) * 1.1, 0, 1)
    lit = np.clip(saturate(lamp, 1.4) * (0.55 + 0.6 * tint), 0, 1)
    return mix(flat(p, panel), lit, strength)


def pixel(p: Field, look: Rng, chance: Rng) -> Field:
    size = int(4 * scale(p))
    ground = colour(look, (0, 1), (0.3, 0.6), (0.75, 0.95))
    block, _, _ = cells(tinted_ground(p, ground), size)
    return np.round(saturate(block, 1.5) * 4).astype(np.float32) / 4


def neon(p: Field, look: Rng, chance: Rng) -> Field:
    night = colour(look, (0.6, 0.9), (0.5, 0.9), (0.03, 0.16))
    tubes = [colour(look, (0, 1), (0.75, 1), (1, 1)) for _ in range(2)]
    edge = lines(p, 0.7, 3.4)
    glow = np.clip(blur(edge, 2.6 * scale(p)) * 1.5, 0, 1)
    y = np.linspace(0, 1, p.shape[0], dtype=np.float32)[:, None].repeat(p.shape[1], 1)
    hue = ramp(y, tubes)
    return np.clip(
        mix(mix(flat(p, night), hue, glow * 0.75), np.clip(hue * 0.5 + 0.5, 0, 1), edge), 0, 1
    )


def scanlines(p: Field, look: Rng, chance: Rng) -> Field:
    glow = colour(look, (0.15, 0.65), (0.4, 1), (0.9, 1))
    dark = glow * 0.08
    inverse = np.clip(1.05 - light(p), 0, 1) * 0.75 + 0.5 * lines(p, 0.7, 2.0) + 0.1
    _, b = grid(p, 0.0)
    line = 0.55 + 0.45 * np.cos(2 * np.pi * b / (float(look.choice([3.0, 4.0])) * scale(p)))
    return np.clip(mix(flat(p, dark), flat(p, glow), np.clip(inverse, 0, 1) * line), 0, 1)


def blueprint(p: Field, look: Rng, chance: Rng) -> Field:
    blue = colour(look, (0.58, 0.63), (0.75, 0.95), (0.4, 0.65))
    rule = 8 * scale(p)
    a, b = grid(p, 0.0)
    ruled = ((a % rule < 1) | (b % rule < 1)).astype(np.float32) * 0.22
    out = mix(flat(p, blue), flat(p, WHITE), ruled)
    shade = np.clip(1 - light(p), 0, 1) * figure(p) * 0.18
    return mix(out, flat(p, WHITE), np.clip(lines(p, 0.6, 3.0) + shade, 0, 1))


def thermal(p: Field, look: Rng, chance: Rng) -> Field:
    stops = [
        np.array(c, np.float32)
        for c in ((0.02, 0.0, 0.2), (0.35, 0, 0.6), (0.9, 0.1, 0.35), (1, 0.6, 0.05), (1, 1, 0.75))
    ]
    heat = blur((1 - light(p)) * 0.55 + 0.35 * figure(p), 1.2 * scale(p)) + 0.03 * grain(
        p, chance, 2
    )
    return ramp(np.clip(heat + 0.06, 0, 1), stops)
