"""Procedural picture styles: families with random parameters, drawn over a picture on white.

The marks are sized for 64 px and grow with the picture. All arithmetic is float32 in [0, 1]; the same
(picture, style, seed) gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stylear.mini.brushes import (
    WHITE,
    Field,
    Rng,
    blur,
    cells,
    colour,
    figure,
    filled,
    flat,
    grain,
    grid,
    light,
    lines,
    mix,
    paper,
    posterise,
    ramp,
    saturated,
    scale,
    tinted_ground,
    voronoi,
)
from stylear.pair import digest

Image = npt.NDArray[Any]  # uint8, (H, W, 3)


@dataclass(frozen=True, slots=True)
class Style:
    """A variant of a family: the seed fixes its palette, cell sizes, angles and strokes."""

    family: str
    variant: int

    @property
    def name(self) -> str:
        return f"{self.family}/{self.variant}"


def make_style(family: str, variant: int) -> Style:
    """The style of a family with this number. Raises ValueError for an unknown family."""
    if family not in FAMILIES:
        raise ValueError(
            f"style family: expected one of {', '.join(sorted(FAMILIES))}, found {family!r}"
        )
    return Style(family, variant)


def render(image: Image, style: Style, seed: int) -> Image:
    """The picture (H, W, 3) uint8 in a style; `seed` moves only what chance moves within the style."""
    look = np.random.default_rng(int(digest("style", style.family, style.variant)[:12], 16))
    chance = np.random.default_rng(seed)
    picture = image.astype(np.float32) / 255
    drawn = FAMILIES[style.family](picture, look, chance)
    return np.clip(drawn * 255 + 0.5, 0, 255).astype(np.uint8)


# --- families: (picture, look, chance) -> picture --------------------------------------------------


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
        np.clip(saturated(tile, 1.3) * (0.3 + 0.7 * tone), 0, 1),
        flat(p, grout),
        edge.astype(np.float32),
    )


def halftone(p: Field, look: Rng, chance: Rng) -> Field:
    ink = colour(look, (0, 1), (0.6, 1.0), (0.2, 0.7))
    ground = colour(look, (0, 1), (0.05, 0.35), (0.9, 1.0))
    pitch = float(look.uniform(3.6, 5.6)) * scale(p)
    a, b = grid(p, float(look.uniform(0.2, 1.3)))
    wave = (np.cos(2 * np.pi * a / pitch) + np.cos(2 * np.pi * b / pitch)) / 4 + 0.5
    dark = np.clip(1.15 * (1 - light(blur(p, 0.8 * scale(p)))) + 0.12, 0, 1)
    return mix(flat(p, ground), flat(p, ink), np.clip((dark - wave) * 5 + 0.5, 0, 1))


def chalkboard(p: Field, look: Rng, chance: Rng) -> Field:
    board = colour(look, (0.25, 0.7), (0.0, 0.45), (0.1, 0.28))
    chalk = colour(look, (0, 1), (0, 0.3), (0.9, 1))
    dust = np.clip(0.75 + 0.35 * grain(p, chance, 0.5), 0, 1)
    body = mix(flat(p, board), saturated(blur(p, 0.8), 0.7), figure(p) * 0.38 * dust)
    body = body + 0.03 * grain(p, chance, 3)[..., None]
    return mix(body, flat(p, chalk), np.clip(lines(p, 0.8, 3.4) * dust, 0, 1))


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


def cross_stitch(p: Field, look: Rng, chance: Rng) -> Field:
    linen = colour(look, (0, 1), (0.05, 0.35), (0.6, 0.95))
    size = round(float(look.choice([4, 5]) * scale(p)))
    thread, u, v = cells(tinted_ground(p, linen), size)
    mask, _, _ = cells(figure(p)[..., None].repeat(3, 2), size)
    cross = np.minimum(np.abs(u - v), np.abs(u + v)) < 0.62
    ground = flat(p, linen * 0.82)
    stitched = mix(ground, saturated(thread, 1.35), cross * (0.15 + 0.85 * (mask[..., 0] > 0.4)))
    return np.clip(stitched * (0.92 + 0.1 * (u - v)[..., None] * 0.5), 0, 1)


def risograph(p: Field, look: Rng, chance: Rng) -> Field:
    hue = float(look.uniform(0, 1))
    first = colour(look, (hue, hue + 0.08), (0.7, 1), (0.7, 1))
    second = colour(look, (hue + 0.35, hue + 0.6), (0.6, 1), (0.45, 0.8))
    sheet = paper(look, 0.12)
    shift = round(float(look.choice([1, 2]) * scale(p)))
    dark = 1 - light(p)
    warm = np.clip(p[..., 0] - p[..., 2] * 0.6, 0, 1) * figure(p)
    noise = 0.18 * grain(p, chance, 0.35)
    one = np.clip(np.where(warm + noise > 0.35, 0.9, 0.1 * figure(p)) + 0 * dark, 0, 1)
    two = np.roll(np.clip((dark + noise - 0.42) * 6, 0, 1), (shift, shift), (0, 1))
    plate = np.roll(figure(p), (shift, -shift), (0, 1)) * 0.3
    out = flat(p, sheet)
    for amount, ink in ((np.maximum(one, plate), first), (two, second)):
        out = out * (1 - amount[..., None] * (1 - ink))
    return out.astype(np.float32)


def watercolour(p: Field, look: Rng, chance: Rng) -> Field:
    sheet, wash = paper(look, 0.1), colour(look, (0, 1), (0.15, 0.4), (0.85, 1))
    y, x = np.mgrid[: p.shape[0], : p.shape[1]].astype(np.float32)
    bend = 1.8 * scale(p)
    dx, dy = grain(p, chance, 3.5) * bend, grain(p, chance, 3.5) * bend
    bled = cv2.remap(
        blur(p, 1.1 * scale(p)), x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    body = np.clip(1 - (1 - bled) * (0.62 + 0.16 * grain(p, chance, 2.2))[..., None], 0, 1)
    rim = lines(bled.astype(np.float32), 1.0, 1.6)[..., None] * 0.28
    blot = np.clip(0.5 + 0.5 * grain(p, chance, 7), 0, 1)
    return np.clip(body * (1 - rim) * mix(flat(p, sheet), flat(p, wash), blot), 0, 1).astype(
        np.float32
    )


def pointillism(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0, 1), (0.1, 0.4), (0.75, 0.98))
    count = int(look.integers(330, 520))
    labels, border = voronoi(p, chance, count)
    dots = filled(tinted_ground(p, ground), labels)
    shift = chance.uniform(-0.2, 0.2, (labels.max() + 1, 3)).astype(np.float32)
    inside = np.clip(border / scale(p) * 1.3 - 0.1, 0, 1)
    return mix(
        flat(p, ground * 0.5 + 0.45), np.clip(saturated(dots, 1.5) + shift[labels], 0, 1), inside
    )


def crosshatch(p: Field, look: Rng, chance: Rng) -> Field:
    ink, sheet = colour(look, (0, 1), (0.1, 0.8), (0.05, 0.35)), paper(look, 0.25)
    pitch, turn = float(look.uniform(3.0, 4.4)) * scale(p), float(look.uniform(0, np.pi))
    dark = 1 - light(blur(p, 0.6 * scale(p))) + 0.22 * figure(p)
    out = lines(p, 0.7, 3.0)
    for number, level in enumerate((0.12, 0.32, 0.55)):
        a, _ = grid(p, turn + number * np.pi / 3)
        stroke = np.clip(
            1.4 * np.cos(2 * np.pi * (a + grain(p, chance, 4) * 0.5) / pitch) - 0.1, 0, 1
        )
        out = np.maximum(out, stroke * np.clip((dark - level) * 6, 0, 1))
    return mix(flat(p, sheet), flat(p, ink), np.clip(out, 0, 1))


def paper_cut(p: Field, look: Rng, chance: Rng) -> Field:
    hue, span = float(look.uniform(0, 1)), float(look.uniform(0.1, 0.5))
    sheets = [
        colour(
            look,
            (hue + span * k / 3, hue + span * k / 3 + 0.04),
            (0.35, 0.8),
            (0.25 + 0.18 * k, 0.4 + 0.2 * k),
        )
        for k in range(4)
    ]
    tone = blur(light(p), 1.2 * scale(p))
    tone = np.where(figure(p) > 0.5, np.clip(tone * 0.85, 0, 0.72), 1.0).astype(np.float32)
    level = np.digitize(blur(tone.astype(np.float32), 0.8 * scale(p)), [0.28, 0.52, 0.8])
    out = np.stack(sheets)[level].astype(np.float32)
    step = max(1, round(1.5 * scale(p)))
    above = np.roll(level, (step, step), (0, 1))
    shadow = blur((above < level).astype(np.float32), 0.7 * scale(p))
    return out * (1 - 0.55 * shadow[..., None])


def pencil(p: Field, look: Rng, chance: Rng) -> Field:
    sheet, lead = paper(look, 0.1), colour(look, (0, 1), (0, 0.5), (0.15, 0.4))
    tooth = np.clip(0.6 + 0.4 * grain(p, chance, 0.4), 0, 1)
    a, _ = grid(p, float(look.uniform(0.4, 1.2)))
    strokes = np.clip(
        0.6 + 0.5 * np.cos(2 * np.pi * (a + grain(p, chance, 2)) / (2.6 * scale(p))), 0, 1
    )
    shade = np.clip(1 - light(p), 0, 1) * 0.75 * tooth * strokes
    return mix(
        flat(p, sheet), flat(p, lead), np.clip(np.maximum(shade, lines(p, 0.6, 2.4) * tooth), 0, 1)
    )


def impasto(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0, 1), (0.3, 0.75), (0.4, 0.9))
    base = tinted_ground(p, ground)
    count = int(look.integers(150, 230))
    turn = float(look.uniform(0, np.pi))
    angle = turn + 0.5 * grain(p, chance, 8)
    labels, border = voronoi(base, chance, count)
    daubs = filled(base, labels)
    a, b = grid(p, turn)
    bristle = np.cos(
        2 * np.pi * (a * np.cos(angle - turn) + b * np.sin(angle - turn)) / (2.3 * scale(p))
    )
    shift = chance.normal(0, 0.07, (labels.max() + 1, 1)).astype(np.float32)
    lit = 0.09 * bristle + 0.10 * np.clip(1 - border, 0, 1)
    return np.clip(saturated(daubs, 1.45) + shift[labels] + lit[..., None], 0, 1).astype(np.float32)


def comic(p: Field, look: Rng, chance: Rng) -> Field:
    burst, dot = (
        colour(look, (0, 1), (0.55, 0.95), (0.85, 1)),
        colour(look, (0, 1), (0.5, 1), (0.6, 1)),
    )
    figure_mask = figure(p)
    body = saturated(posterise(p, 3), 1.6)
    pitch = float(look.uniform(4.2, 5.6)) * scale(p)
    a, b = grid(p, np.pi / 4)
    dots = ((np.cos(2 * np.pi * a / pitch) + np.cos(2 * np.pi * b / pitch)) > 0.7).astype(
        np.float32
    )
    ground = mix(flat(p, burst), flat(p, dot), dots)
    out = mix(ground, body, (figure_mask > 0.5).astype(np.float32))
    return mix(out, np.zeros_like(p), np.clip(lines(p, 0.9, 3.2) * 1.5, 0, 1))


def linocut(p: Field, look: Rng, chance: Rng) -> Field:
    hue = float(look.uniform(0, 1))
    ink, second = (
        colour(look, (hue, hue), (0.5, 0.9), (0.1, 0.35)),
        colour(look, (hue + 0.3, hue + 0.7), (0.5, 0.9), (0.7, 0.95)),
    )
    sheet = paper(look, 0.2)
    tone = blur(light(p), 0.8 * scale(p)) + 0.06 * grain(p, chance, 0.8)
    gouge = np.cos(2 * np.pi * grid(p, float(look.uniform(0, np.pi)))[0] / (4 * scale(p)))
    mid = np.clip((0.9 - tone) * 8, 0, 1) * figure(p)
    dark = np.clip((0.5 + 0.12 * gouge - tone) * 8, 0, 1)
    chips = ((gouge > 0.72) & (grain(p, chance, 1.6) > 0.1)).astype(np.float32) * (1 - figure(p))
    out = mix(
        mix(flat(p, sheet), flat(p, second), mid),
        flat(p, ink),
        np.maximum(dark, lines(p, 0.9, 2.6)),
    )
    return mix(out, flat(p, ink), chips * 0.8)


def duotone(p: Field, look: Rng, chance: Rng) -> Field:
    hue = float(look.uniform(0, 1))
    dark = colour(look, (hue, hue), (0.6, 1), (0.12, 0.4))
    bright = colour(look, (hue + 0.25, hue + 0.75), (0.25, 0.7), (0.9, 1))
    tone = np.clip(light(p) * 1.1 - 0.1 + 0.05 * grain(p, chance, 0.3), 0, 1)
    return ramp(tone, [dark, (dark + bright) / 2 + 0.05, bright])


def low_poly(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0, 1), (0.2, 0.6), (0.5, 0.95))
    labels, _ = voronoi(p, chance, int(look.integers(70, 120)))
    a, b = grid(p, float(look.uniform(0, np.pi)))
    half = ((a + b).astype(int) // int(7 * scale(p)) + (a - b).astype(int) // int(9 * scale(p))) % 2
    facets = labels * 2 + half
    shade = chance.uniform(-0.13, 0.13, (facets.max() + 1, 1)).astype(np.float32)
    return np.clip(saturated(filled(tinted_ground(p, ground), facets), 1.25) + shade[facets], 0, 1)


def knit(p: Field, look: Rng, chance: Rng) -> Field:
    wool = colour(look, (0, 1), (0.2, 0.7), (0.35, 0.95))
    size = round(5 * scale(p))
    yarn, u, v = cells(tinted_ground(p, wool), size)
    vee = np.abs(v - 0.9 * np.abs(u) + 0.25)
    return np.clip(
        saturated(yarn, 1.15)
        * (1.12 - 0.5 * np.clip(vee, 0, 1) - 0.25 * (np.abs(u) < 0.16))[..., None],
        0,
        1,
    )


def led(p: Field, look: Rng, chance: Rng) -> Field:
    panel, tint = (
        colour(look, (0, 1), (0.1, 0.6), (0.03, 0.14)),
        colour(look, (0, 1), (0.1, 0.9), (1, 1)),
    )
    size = round(float(look.choice([4, 5]) * scale(p)))
    lamp, u, v = cells(tinted_ground(p, panel + 0.08), size)
    strength = np.clip(1.25 - (u**2 + v**2) * 1.1, 0, 1)
    lit = np.clip(saturated(lamp, 1.4) * (0.55 + 0.6 * tint), 0, 1)
    return mix(flat(p, panel), lit, strength)


def scanlines(p: Field, look: Rng, chance: Rng) -> Field:
    glow = colour(look, (0.15, 0.65), (0.4, 1), (0.9, 1))
    dark = glow * 0.08
    inverse = np.clip(1.05 - light(p), 0, 1) * 0.75 + 0.5 * lines(p, 0.7, 2.0) + 0.1
    _, b = grid(p, 0.0)
    line = 0.55 + 0.45 * np.cos(2 * np.pi * b / (float(look.choice([3.0, 4.0])) * scale(p)))
    return np.clip(mix(flat(p, dark), flat(p, glow), np.clip(inverse, 0, 1) * line), 0, 1)


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


# held out from all training


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


def woodcut(p: Field, look: Rng, chance: Rng) -> Field:
    ink, sheet = (
        colour(look, (0.0, 0.1), (0.1, 0.5), (0.04, 0.14)),
        colour(look, (0.08, 0.13), (0.2, 0.4), (0.85, 0.95)),
    )
    a, _ = grid(p, float(look.uniform(-0.3, 0.3)) + np.pi / 2)
    bent = a + 1.6 * grain(p, chance, 5) + 5 * light(blur(p, 2 * scale(p)))
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * bent / (float(look.uniform(3.4, 4.4)) * scale(p)))
    dark = np.clip(1 - light(blur(p, 0.7)), 0, 1) * 1.1 + 0.16
    return mix(
        flat(p, sheet),
        flat(p, ink),
        np.clip(np.maximum((dark - wave) * 6 + 0.4, lines(p, 0.9, 3) * 1.3), 0, 1),
    )


def stained_glass(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0.5, 0.75), (0.4, 0.8), (0.5, 0.9))
    labels, border = voronoi(p, chance, 64)
    base = tinted_ground(p, ground)
    glass = saturated(filled(posterise(base, 5), labels) * 0.45 + posterise(base, 4) * 0.55, 1.8)
    lead = np.maximum(np.clip(1.5 - border / scale(p) * 1.5, 0, 1), lines(p, 0.9, 2.4))
    shine = 1 + 0.2 * grain(p, chance, 4)
    return mix(np.clip(glass * shine[..., None], 0, 1), flat(p, np.full(3, 0.06, np.float32)), lead)


def pixel(p: Field, look: Rng, chance: Rng) -> Field:
    size = int(4 * scale(p))
    ground = colour(look, (0, 1), (0.3, 0.6), (0.75, 0.95))
    block, _, _ = cells(tinted_ground(p, ground), size)
    return np.round(saturated(block, 1.5) * 4).astype(np.float32) / 4


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


Family = Callable[[Field, Rng, Rng], Field]
TRAIN: dict[str, Family] = {
    "mosaic": mosaic, "halftone": halftone, "chalkboard": chalkboard, "neon": neon,
    "cross-stitch": cross_stitch, "risograph": risograph, "watercolour": watercolour,
    "pointillism": pointillism, "crosshatch": crosshatch, "paper-cut": paper_cut, "pencil": pencil,
    "impasto": impasto, "comic": comic, "linocut": linocut, "duotone": duotone, "low-poly": low_poly,
    "knit": knit, "led": led, "scanlines": scanlines, "pottery": pottery,
}  # fmt: skip
HELD_OUT: dict[str, Family] = {
    "blueprint": blueprint, "thermal": thermal, "woodcut": woodcut, "stained-glass": stained_glass,
    "pixel": pixel, "batik": batik,
}  # fmt: skip
FAMILIES: dict[str, Family] = {**TRAIN, **HELD_OUT}
TRAIN_FAMILIES = tuple(TRAIN)
HELD_OUT_FAMILIES = tuple(HELD_OUT)
