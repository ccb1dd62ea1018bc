"""De-stylising: words of style go, and what is in the scene stays."""

from __future__ import annotations

import random
import re

import pytest

from stylear.curate.synthesize.prompts.destyle import destyle
from stylear.curate.synthesize.prompts.destyle.words import FILE, SECTIONS, style_words

CHANGED = {
    # a medium at the beginning
    "an oil painting of a dog": "a dog",
    "A photo of a dog.": "A dog.",
    "a black and white photo of a train": "a train",
    "black-and-white photograph of a street": "a street",
    "a b&w photo of a train": "a train",
    "A richly textured oil painting of a young badger": "A young badger",
    "Oil-on-canvas painting of a night sky": "A night sky",
    "3d render of a chair": "a chair",
    "a Van Gogh painting of a sunflower": "a sunflower",
    "Van Gogh's painting of a sunflower": "A sunflower",
    "a surrealist oil painting by salvador dalí of a cat": "a cat",
    "a painting by John Smith of a bridge": "a bridge",
    "a child's drawing of a house": "a house",
    "an anime-style picture of a cat": "a cat",
    "This is a photo of a cat.": "A cat.",
    "The image shows a dog on the beach": "A dog on the beach",
    "a photo of a photo of a cat": "a cat",
    # what the picture takes in stays
    "A close-up photo of a wombat": "A close-up of a wombat",
    "an aerial photo of a stadium": "an aerial view of a stadium",
    "vibrant portrait painting of an old man": "portrait of an old man",
    "a still life painting of a pair of shoes": "a still life of a pair of shoes",
    "An oil portrait of a king": "A portrait of a king",
    "a watercolor landscape with hills": "a landscape with hills",
    "an 8-bit owl": "an owl",
    "A pixel art fox": "A fox",
    # a phrase inside
    "a fox in the style of Monet and a dog": "a fox and a dog",
    "a cat in the style of Van Gogh sitting on a bench": "a cat sitting on a bench",
    "a dog drawn in the style of a child's drawing": "a dog",
    "a portrait of a man in pop art style": "a portrait of a man",
    "The Oriental Pearl in oil painting": "The Oriental Pearl",
    "a cat as an oil painting": "a cat",
    "a castle by greg rutkowski and Alphonse Mucha": "a castle",
    # tags
    "a cat, trending on artstation, 8k": "a cat",
    "digital art, a cat on a wall": "a cat on a wall",
    "Sunset over the sea - oil painting": "Sunset over the sea",
    "Sunset (oil painting)": "Sunset",
    "Oil painting: a dog": "A dog",
    "(masterpiece:1.2), best quality, a girl": "a girl",
    "Downtown Seattle at sunrise. detailed ink wash.": "Downtown Seattle at sunrise.",
    "A raccoon holds a bag. Oil painting in the style of pixel art.": "A raccoon holds a bag.",
    "A raccoon holds a bag. Oil painting": "A raccoon holds a bag.",
    "A gecko. Charcoal.": "A gecko.",
    "a robot. wide-angle view. comic book illustration.": "a robot.",
    "the elephant is facing left. vector art, orange logo.": "the elephant is facing left. orange logo.",
    "a photo of a cat, black and white": "a cat",
    "portrait of a woman, intricate, highly detailed, digital painting, artstation, sharp focus,"
    " illustration, art by artgerm and greg rutkowski": "portrait of a woman",
    "a photo of dog, cat and bird, 8k": "dog, cat and bird",
    "a bright, colorful, abstract painting of birds": "birds",
    "Portrait of a Woman by Leonardo da Vinci | Art Print": "Portrait of a Woman",
    "Blue Dog - Original Oil Painting by John Doe": "Blue Dog",
    "two cats, photo by Anna": "two cats",
    '"a photo of a fox"': '"a fox"',
}

KEPT = [
    "a man drawing a picture",
    "A child painting a picture .",
    "a woman painting a fence",
    "photo booth with people inside",
    "a photographer with a camera",
    "A man takes a photo of a woman",
    "she looks at a photo of her mother",
    "A female artist showing her painting",
    "a picture frame on a shelf",
    "a drawing board and a pencil",
    "a sketch artist in the street",
    "a watercolor set with twelve colors",
    "a pixel art exhibition",
    "a painting of a dog hangs on a wall",
    "A painting of a face on a brick wall",
    "a drawing of a pint of beer on a brick wall",
    "a photo of a family is held by a man",
    "the painting of the king is on display",
    "a framed painting of a mountain",
    "a wall with a painting of a cat",
    "a cat licking a ball with a drawing of the Eiffel Tower on it",
    "a vase with a painting of pandas in the style of Egyptian hieroglyphics",
    "a photograph in a temple of a wall painting, in the style of Egyptian hieroglyphics",
    "a woman with a chalk portrait of two children",
    "a sofa, a table, and a painting",
    "a sofa, a lamp, a painting",
    "art supplies: brushes, paint, canvas",
    "A black and white dog runs on grass",
    "a boy in black and white stripes",
    "a zebra, black and white, in a field",
    "a dog, black and white",
    "a red, white and blue flag",
    "a vintage car",
    "a beautiful landscape with a lake",
    "an old portrait of a queen",
    "a woman in a casual style",
    "a man in a style of his own",
    "a cowboy style hat",
    "a house by the sea",
    "a cabin in the woods, by Lake Michigan",
    "an oil rig at sea",
    "a film crew at work",
    "fish in oil",
    "a man interested in oil painting",
    "a lady dressed as a painting",
    "Andy Warhol sits in a chair",
    "a golden retriever at golden hour",
    "1,000 balloons in the sky",
    "Mr. Smith goes to St. Louis",
    "The picture shows are over.",
    "a statue of a horse",
    "a mural of a fox on a building",
    "a Japanese garden",
    "charcoal",
    "Crayon",
    "golden ratio",
    "a dog,, and  a   cat ;",
    "Picture of the day: a heron",
    '"photo of the week", by Nikon',
    "Close up of a painting by Van Gogh",
    "a wall with a painting in cubist style",
    "photo courtesy of NASA",
    "living room with wallpaper, light, and shadows",
    "a man with a film camera",
    "Concept Art for a game",
]


@pytest.mark.parametrize("caption", CHANGED)
def test_words_of_style_are_taken_out(caption: str) -> None:
    assert destyle(caption).text == CHANGED[caption]


@pytest.mark.parametrize("caption", KEPT)
def test_what_is_in_the_scene_stays_to_the_byte(caption: str) -> None:
    assert destyle(caption) == (caption, ())


@pytest.mark.parametrize(
    "caption", ["oil painting", "A black and white photo", "8k, octane render"]
)
def test_nothing_is_left_of_a_caption_of_style_alone(caption: str) -> None:
    assert destyle(caption) == ("", (caption,))


def test_what_was_removed_is_reported_verbatim() -> None:
    result = destyle("An oil painting of a cat in the style of Monet, highly detailed, 8K.")
    assert result.text == "A cat."
    assert result.removed == (
        "An oil painting of",
        "in the style of Monet",
        "highly detailed",
        "8K",
    )


def test_random_captions_are_done_in_one_go() -> None:
    phrases = [line.split(" => ")[0] for line in FILE.read_text("utf-8").splitlines()]
    phrases = [line for line in phrases if line and line[0] not in "#["]
    glue = [
        *",.;|-():",
        *re.findall("[a-zA-Z]+", "a an the of in style by and as with cat John shows"),
    ]
    draw, changed = random.Random(7), 0
    for _ in range(1500):
        words = [draw.choice(phrases if draw.random() < 0.45 else glue) for _ in range(9)]
        caption = " ".join(words)
        result = destyle(caption)
        changed += result.text != caption
        assert destyle(result.text) == (result.text, ())
        assert bool(result.removed) == (result.text != caption)
    assert changed > 200


@pytest.mark.parametrize(
    "part", ["photo of ", "a and A ", "by A and ", "oil pastel ", "in the style of ", "(a", "side "]
)
def test_a_hostile_caption_takes_few_steps(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from stylear.curate.synthesize.prompts.destyle.words import Phrases

    steps, real = 0, Phrases.match

    def counted(self: Phrases, text: list, place: int) -> int:
        nonlocal steps
        steps += 1
        return real(self, text, place)

    monkeypatch.setattr(Phrases, "match", counted)
    destyle((part * 1000)[:1000])
    assert 0 < steps < 200_000


def test_the_word_list_is_in_order() -> None:
    lines = FILE.read_text("utf-8").splitlines()
    assert [line[1:-1] for line in lines if line.startswith("[")] == list(SECTIONS)
    section, seen = "", set()
    for line in lines:
        if line.startswith("["):
            section, seen = line, set()
        elif line and not line.startswith("#"):
            assert line == line.lower()
            assert line not in seen, f"{section} has {line} twice"
            seen.add(line)
    assert style_words().framed["close", "up"] == "close-up of"
