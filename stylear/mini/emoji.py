"""Build the mini corpus from two vendors' emoji drawings: a captioned image folder for `stylear curate`.

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0    (and unpack each)
    python -m stylear.mini.emoji --noto google/package --twemoji twitter/package --out FOLDER

The folder holds 64 px drawings on white and `captions.csv` (image, caption, vendor, licence, category,
split). Both hands of a concept share one caption, hence one content. `manifests/mini-corpus.yaml`
turns the folder into the shards that ship in `stylear/mini/corpus/`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from stylear.errors import SourceError

VENDORS = {
    "noto": ("google", "Apache-2.0"),
    "twemoji": ("twitter", "CC-BY-4.0"),
}
HELD_OUT_FRACTION = 0.10  # concepts whose second hand no mini model is trained on

COLOURS = 96

CATEGORIES = {
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
}
LEFT_OUT_SUBCATEGORIES = {"hair-style", "skin-tone", "family", "person-symbol", "hand-fingers-open"}
LEFT_OUT_SUBCATEGORIES |= {"hand-fingers-partial", "hand-single-finger", "hand-fingers-closed"}
LEFT_OUT_SUBCATEGORIES |= {"person-gesture", "hands"}
MAX_WORDS = 6
LEFT_OUT_WORDS = re.compile(
    r"\b(symbol|sign|clock face|suit|keycap|squared|circled|button|meridians|flags?|mx|letters?"
    r"|chart with upwards trend and|cancellation|silhouette of japan|input|facing|wheelchair|white cane"
    r"|heart (decoration|exclamation)|oncoming|adult|pregnant|breast-feeding|head shaking|person (red|curly"
    r"|white|bald|blond)|one sound wave|receiver|massage|haircut|older|moon with face|asia-australia|europe"
    r"|steamy|bouncing|pedestrian|foggy|station|motorway|department store|love hotel|japanese post"
    r"|tilted|(incoming|downwards) ?envelope|envelope with|outbox|inbox|page|card index|spiral|linked"
    r"|metro|light rail|suspension|cableway|tramway|railway car|tram car|airplane (arriving|departure)"
    r"|placard|identification|low battery|service dog|guide dog|smiling eyes|tightly|cold sweat"
    r"|large eye|closed eyes|disappointed|weary|tired|confounded|persevering|anguished|hushed|pensive"
    r"|relieved|expressionless|dotted|exhaling|lying|bags under|diagonal|holding back|boy|girl|child"
    r"|raised hand|handball|water polo|performing|probing|broken chain|busts?|footprints|fingerprint"
    r"|technologist|office worker|information desk|guardsman|veil|headscarf|feeding)\b"
)
# Things whose drawings are hard to tell apart or to name at 64 px.
LEFT_OUT_ENDINGS = re.compile(
    r"( beard| hair| bald|speech bubble|anger bubble|thought balloon|with ink pen|with key|file box"
    r"|cabinet|bookmark tabs|a label|a memo|a receipt|a pager|a minidisc|a dvd|level slider|control knobs"
    r"|sound waves|a trackball|a fax machine|a clamp|a hook|a hair pick|a flat shoe|thong sandal|briefs"
    r"|safety vest|a pouch|a knot|film frames|a ledger|decorative cover|orange book|a green book"
    r"|hands|a hole|leafy green|root vegetable|a tamale|stuffed flatbread|a dango|oden|fondue|mate drink"
    r"|beverage box|tumbler glass|a custard|moon cake|pan of food|a sauropod|a mammoth|a water buffalo"
    r"|an ox|a boar|a bison|a bactrian camel|a microbe|an oyster|a worm|a cockroach|a rosette|a blossom"
    r"|a herb|an empty nest|under|sleeping accommodation|kneeling person|standing person|a person golfing"
    r"|a fencer|person doing cartwheel|wrestlers|mountain bicyclist|merperson|a supervillain|an imp"
    r"|construction|a stadium|a national park|a kaaba|a hotel|a bank|derelict house|bullet nose"
    r"|mountain railway|a monorail|a trolleybus|a minibus|oil drum|a seat|a bus stop|revolving light"
    r"|timer clock|flowing sand|mantelpiece clock|small cloud|large cloud|on ground|without snow|rain drops"
    r"|a wind face|a hamsa|funeral urn|a petri dish|an elevator|lotion bottle|a safety pin|a plunger"
    r"|triangular ruler|tear-off calendar|downwards trend|hammer and pick|a crutch|hospital"
    r"|puck|paddle and ball|shuttlecock|lacrosse stick and ball|sash|moon viewing ceremony|reminder ribbon"
    r"|second place medal|third place medal|nesting dolls|a musical score|an x-ray picture|bar chart)$"
)
GENDERED = re.compile(r"^(man|woman|men|women|male|female)\b")

# Unicode names that describe the character and not the picture.
RENAMED = {
    "black sun with rays": "sun",
    "black scissors": "scissors",
    "black nib": "pen nib",
    "black telephone": "telephone",
    "white flower": "white flower",
    "ear of maize": "ear of corn",
    "poultry leg": "chicken leg",
    "steaming bowl": "bowl of ramen",
    "father christmas": "santa claus",
    "mother christmas": "mrs claus",
    "direct hit": "dart board",
    "face savouring delicious food": "face licking its lips",
    "left-pointing magnifying glass": "magnifying glass",
    "right-pointing magnifying glass": "magnifying glass tilted right",
    "electric torch": "flashlight",
    "electric light bulb": "light bulb",
    "personal computer": "laptop computer",
    "hocho": "kitchen knife",
    "billiards": "billiard ball",
    "cooking": "fried egg in a pan",
    "cyclone": "blue spiral",
    "milky way": "milky way in the night sky",
    "american football": "american football ball",
    "moyai": "stone statue",
    "black heart": "black heart",
    "silhouette of japan": "map of japan",
    "white smiling face": "happy blushing face",
    "white frowning face": "sad frowning face",
    "womans clothes": "pink blouse",
    "womans hat": "straw hat with a ribbon",
    "mans shoe": "brown leather shoe",
    "womans sandal": "sandal",
    "womans boots": "boot",
    "publ address loudspeaker": "loudspeaker",
    "face with ok gesture": "person making an ok gesture",
    "motor scooter": "motor scooter",
    "rolling on the floor laughing": "face rolling on the floor laughing",
    "onion": "onion",
    "bath": "person in a bath",
    "camping": "tent in the woods",
    "bowling": "bowling ball and pins",
    "horse racing": "jockey on a horse",
    "juggling": "person juggling",
    "heavy black heart": "red heart",
    "x-ray": "x-ray picture",
    "brick": "wall of bricks",
    "wood": "log of wood",
    "pinata": "pinata horse",
    "canned food": "can of food",
    "imp": "purple imp",
    "house building": "house",
    "automobile": "red car",
}
PLURAL_OR_MASS = re.compile(
    r"(s|rice|popcorn|bacon|bread|fondue|oden|broccoli|garlic|ginger root|curry and rice|cooked rice"
    r"|spaghetti|sushi|butter|fire|fog|dna|cityscape at dusk|snow|money|tea|falafel|salt)$"
)
SINGULAR_ENDING_IN_S = re.compile(
    r"(cactus|bus|dress|octopus|hibiscus|lotus|cross|glass|compass|walrus|rhinoceros|grass|colossus|abacus"
    r"|bus|trolleybus|minibus|harness|diplodocus|brontosaurus|albatross|chess|waitress|princess|face"
    r"|ibis|lens|virus|tyrannosaurus|hippopotamus|class)$"
)
DEFINITE = {"earth", "moon", "sun", "milky way in the night sky"}


def caption_of(name: str) -> str:
    """A natural caption from a Unicode name: `RED APPLE` becomes `a red apple`."""
    words = name.lower().replace("’", "'").replace("“", "").replace("”", "")
    words = re.sub(r"[:,]", "", words)
    words = RENAMED.get(words, words)
    words = re.sub(r"\s+(emoji|symbol)$", "", words)
    if words in DEFINITE:
        return f"the {words}"
    first = words.split()[0]
    if first in {"person", "baby", "mount", "santa", "mrs", "slice", "pot", "bowl"}:
        article = "" if first in {"mount", "santa", "mrs"} else "a "
        return article + words
    head = re.split(r" (?:with|without|of|and|in|on|behind|at|over) ", words)[0]
    if PLURAL_OR_MASS.search(head) and not SINGULAR_ENDING_IN_S.search(head):
        return words
    vowel = re.match(r"([aio]|e(?!uro)|u(?!ni|ra)|hour|x-ray)(?!ne-)", words)
    return ("an " if vowel else "a ") + words


def concepts(emoji: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The concrete things that both vendors draw, in Unicode order, one for each caption."""
    seen: set[str] = set()
    for entry in sorted(emoji, key=lambda e: int(e["sort_order"])):
        name = str(entry["name"] or "")
        if (
            not name
            or entry["category"] not in CATEGORIES
            or entry["subcategory"] in LEFT_OUT_SUBCATEGORIES
            or LEFT_OUT_WORDS.search(name.lower())
            or not (entry["has_img_google"] and entry["has_img_twitter"])
            or (GENDERED.search(name.lower()) and entry["subcategory"] != "person")
        ):
            continue
        caption = caption_of(name)
        if LEFT_OUT_ENDINGS.search(caption) or len(caption.split()) > MAX_WORDS:
            continue
        if caption not in seen:
            seen.add(caption)
            yield {"caption": caption, "image": str(entry["image"]), "category": entry["category"]}


def held_out(caption: str) -> bool:
    """Whether the second hand of this concept is held out of all mini training."""
    return int(hashlib.sha256(caption.encode()).hexdigest()[:8], 16) / 2**32 < HELD_OUT_FRACTION


def flatten(path: Path) -> Image.Image:
    """The drawing on white, 64 x 64 RGB, in few colours so that it packs well without loss."""
    with Image.open(path) as image:
        drawing = image.convert("RGBA")
    if drawing.size != (64, 64):
        raise SourceError(
            f"{path}: expected a 64x64 drawing, found {drawing.size[0]}x{drawing.size[1]}"
        )
    canvas = Image.new("RGBA", drawing.size, "white")
    canvas.alpha_composite(drawing)
    few = canvas.convert("RGB").quantize(
        COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    return few.convert("RGB")


def build(packages: dict[str, Path], out: Path) -> int:
    """Write the folder; the number of drawings written. `packages`: vendor -> unpacked npm package."""
    listing = packages["noto"] / "emoji.json"
    if not listing.is_file():
        raise SourceError(
            f"{listing}: not found", hint="give the folder of the unpacked npm package"
        )
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, concept in enumerate(concepts(json.loads(listing.read_text(encoding="utf-8")))):
        for vendor, package in packages.items():
            folder, licence = VENDORS[vendor]
            source = package / "img" / folder / "64" / concept["image"]
            if not source.is_file():
                raise SourceError(f"{source}: not found")
            name = f"{index:04d}-{vendor}.png"
            flatten(source).save(out / name)
            second_hand = vendor == "twemoji" and held_out(concept["caption"])
            rows.append(
                {
                    "image": name,
                    "caption": concept["caption"],
                    "vendor": vendor,
                    "licence": licence,
                    "category": concept["category"],
                    "split": "val" if second_hand else "train",
                }
            )
    with (out / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--noto", type=Path, required=True)
    parser.add_argument("--twemoji", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print(build({"noto": options.noto, "twemoji": options.twemoji}, options.out), "drawings")


if __name__ == "__main__":
    main()
