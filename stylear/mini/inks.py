"""Styles that are drawn, printed or painted: (picture, look, chance) -> picture.

`look` fixes palette, pitch and angle of a variant; `chance` moves grain and strokes. Fields are float32,
(H, W, 3) in [0, 1]; the picture stands on white. Marks are sized for 64 px.
"""

from __future__ import annotations

import cv2
import numpy as np

from stylear.mini.brushes import (
    Field,
    Rng,
    blur,
    colour,
    figure,
    fill_cells,
    flat,
    grain,
    grid,
    light,
    lines,
    mix,
    paper,
    posterise,
    ramp,
    saturate,
    scale,
    tinted_ground,
    voronoi,
)


def halftone(p: Field, look: Rng, chance: Rng) -> Field:
    ink = colour(look, (0, 1), (0.6, 1.0), (0.2, 0.7))
    ground = colour(look, (0, 1), (0.05, 0.35), (0.9, 1.0))
    pitch = float(look.uniform(3.6, 5.6)) * scale(p)
    a, b = grid(p, float(look.uniform(0.2, 1.3)))
    wave = (np.cos(2 * np.pi * a / pitch) + np.cos(2 * np.pi * b / pitch)) / 4 + 0.5
    dark = np.clip(1.15 * (1 - light(blur(p, 0.8 * scale(p)))) + 0.12, 0, 1)
    return mix(flat(p, ground), flat(p, ink), np.clip((dark - wave) * 5 + 0.5, 0, 1))


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


def duotone(p: Field, look: Rng, chance: Rng) -> Field:
    hue = float(look.uniform(0, 1))
    dark = colour(look, (hue, hue), (0.6, 1), (0.12, 0.4))
    bright = colour(look, (hue + 0.25, hue + 0.75), (0.25, 0.7), (0.9, 1))
    tone = np.clip(light(p) * 1.1 - 0.1 + 0.05 * grain(p, chance, 0.3), 0, 1)
    return ramp(tone, [dark, (dark + bright) / 2 + 0.05, bright])


def comic(p: Field, look: Rng, chance: Rng) -> Field:
    burst, dot = (
        colour(look, (0, 1), (0.55, 0.95), (0.85, 1)),
        colour(look, (0, 1), (0.5, 1), (0.6, 1)),
    )
    figure_mask = figure(p)
    body = saturate(posterise(p, 3), 1.6)
    pitch = float(look.uniform(4.2, 5.6)) * scale(p)
    a, b = grid(p, np.pi / 4)
    dots = ((np.cos(2 * np.pi * a / pitch) + np.cos(2 * np.pi * b / pitch)) > 0.7).astype(
        np.float32
    )
    ground = mix(flat(p, burst), flat(p, dot), dots)
    out = mix(ground, body, (figure_mask > 0.5).astype(np.float32))
    return mix(out, np.zeros_like(p), np.clip(lines(p, 0.9, 3.2) * 1.5, 0, 1))


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
    dots = fill_cells(tinted_ground(p, ground), labels)
    shift = chance.uniform(-0.2, 0.2, (labels.max() + 1, 3)).astype(np.float32)
    inside = np.clip(border / scale(p) * 1.3 - 0.1, 0, 1)
    return mix(
        flat(p, ground * 0.5 + 0.45), np.clip(saturate(dots, 1.5) + shift[labels], 0, 1), inside
    )


def impasto(p: Field, look: Rng, chance: Rng) -> Field:
    ground = colour(look, (0, 1), (0.3, 0.75), (0.4, 0.9))
    base = tinted_ground(p, ground)
    count = int(look.integers(150, 230))
    turn = float(look.uniform(0, np.pi))
    angle = turn + 0.5 * grain(p, chance, 8)
    labels, border = voronoi(base, chance, count)
    daubs = fill_cells(base, labels)
    a, b = grid(p, turn)
    bristle = np.cos(
        2 * np.pi * (a * np.cos(angle - turn) + b * np.sin(angle - turn)) / (2.3 * scale(p))
    )
    shift = chance.normal(0, 0.07, (labels.max() + 1, 1)).astype(np.float32)
    lit = 0.09 * bristle + 0.10 * np.clip(1 - border, 0, 1)
    return np.clip(saturate(daubs, 1.45) + shift[labels] + lit[..., None], 0, 1).astype(np.float32)


def chalkboard(p: Field, look: Rng, chance: Rng) -> Field:
    board = colour(look, (0.25, 0.7), (0.0, 0.45), (0.1, 0.28))
    chalk = colour(look, (0, 1), (0, 0.3), (0.9, 1))
    dust = np.clip(0.75 + 0.35 * grain(p, chance, 0.5), 0, 1)
    body = mix(flat(p, board), saturate(blur(p, 0.8), 0.7), figure(p) * 0.38 * dust)
    body = body + 0.03 * grain(p, chance, 3)[..., None]
    return mix(body, flat(p, chalk), np.clip(lines(p, 0.8, 3.4) * dust, 0, 1))
