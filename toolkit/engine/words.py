"""What the words of a prompt ask for.

Owns the vocabulary (booru tags and prose), the reading of weights and negations, and the choice of everything the words leave
open. It knows nothing of shapes or colours as numbers: its one value, `Traits`, names what is to be seen. Each attribute draws
from a generator of its own, so a word changes what it names and leaves the rest of the picture as it was; words it does not
know, and the seed, change everything that is open.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

COLOURS: Mapping[str, str] = {
    "silver": "silver", "grey": "silver", "gray": "silver", "platinum": "silver", "white": "white", "black": "black", "dark": "black",
    "raven": "black", "brown": "brown", "brunette": "brown", "chestnut": "brown", "hazel": "brown", "blonde": "blonde", "blond": "blonde",
    "golden": "blonde", "gold": "blonde", "yellow": "blonde", "amber": "orange", "red": "red", "crimson": "red", "scarlet": "red",
    "redhead": "red", "ginger": "orange", "orange": "orange", "pink": "pink", "rose": "pink", "purple": "purple", "violet": "purple",
    "lavender": "purple", "blue": "blue", "azure": "blue", "navy": "navy", "aqua": "aqua", "cyan": "aqua", "teal": "aqua",
    "turquoise": "aqua", "green": "green", "emerald": "green", "mint": "green",
}  # fmt: skip

VOCABULARY: Mapping[str, Mapping[str, str]] = {
    "person": {"nobody": "no humans|nobody|no people|empty scenery", "boy": "boy|1boy|man|male|guy|prince|schoolboy|he|his",
        "girl": "girl|1girl|woman|female|lady|princess|schoolgirl|she|her|maiden"},
    "skin": {"dark": "dark skin|dark skinned|brown skin|black skin", "tan": "tan|tanned|tan skin", "fair": "pale skin|fair skin|pale"},
    "hair_length": {"short": "short hair|short haired|bob|bob cut|pixie cut|very short hair|cropped hair",
        "medium": "medium hair|shoulder length hair|medium length hair",
        "long": "long hair|long haired|very long hair|waist length hair|flowing hair|absurdly long hair"},
    "hair_style": {"twintails": "twintails|twin tails|twintail|pigtails|low twintails", "ponytail": "ponytail|high ponytail|side ponytail|pony tail",
        "loose": "hair down|loose hair|straight hair|wavy hair|messy hair"},
    "expression": {"smile": "smile|smiling|smiles|happy|cheerful|gentle smile|light smile|kind|gentle",
        "laugh": "laugh|laughing|laughs|grin|grinning|open mouth|excited|joyful|joy|singing|big smile", "wink": "wink|winking|winks|one eye closed",
        "asleep": "closed eyes|eyes closed|sleeping|asleep|sleepy|dreaming|eyes shut",
        "angry": "angry|anger|furious|scowl|scowling|glaring|glare|frown|frowning|pout|pouting|mad|annoyed",
        "sad": "sad|melancholy|melancholic|lonely|gloomy|sorrow|depressed", "crying": "crying|tears|weeping|tearful|sobbing|cry|cries|teary eyes",
        "surprised": "surprised|shocked|astonished|wide eyed|amazed|surprise|scared", "shy": "blush|blushing|shy|embarrassed|flustered",
        "smug": "smug|smirk|smirking|mischievous|confident|cat mouth|cocky",
        "serious": "serious|expressionless|stoic|calm|neutral|determined|cool|looking away"},
    "clothes": {"uniform": "school uniform|sailor uniform|serafuku|seifuku|uniform|student|schoolgirl|sailor collar",
        "kimono": "kimono|yukata|haori|hakama|miko|shrine maiden|samurai|robe|wizard|witch|mage",
        "hoodie": "hoodie|sweatshirt|hooded jacket|streetwear|sweater|pullover|t shirt|tshirt|tank top|casual|casual clothes",
        "dress": "dress|gown|sundress|princess|maid|maid outfit|white dress",
        "jacket": "suit|blazer|jacket|necktie|tie|formal|schoolboy|butler|tuxedo|shirt|blouse|coat|cloak|cape|trench coat|winter clothes|"
        "traveler|armor|armour|knight|paladin|warrior|armored|armoured|plate armor"},
    "ornament": {"ribbon": "ribbon|hair ribbon|bow|hair bow",
        "flower": "hair flower|flower in hair|flower in her hair|flower crown|hair ornament|hairclip|hair clip|barrette|hairpin", "scarf": "scarf|muffler",
        "glasses": "glasses|spectacles|eyeglasses|megane", "none": "no ornament"},
    "ears": {"cat": "cat ears|cat girl|catgirl|cat boy|catboy|nekomimi|neko|kemonomimi|animal ears|kitty ears",
        "fox": "fox ears|fox girl|foxgirl|kitsune|fox boy|fox|wolf ears|wolf girl|dog ears",
        "rabbit": "rabbit ears|bunny ears|bunny girl|rabbit girl|bunny|usagi", "none": "human ears"},
    "time": {"dawn": "dawn|sunrise|morning|early morning|daybreak", "day": "day|noon|daytime|sunny|sunlight|blue sky|midday|afternoon|summer",
        "sunset": "sunset|dusk|evening|golden hour|twilight|orange sky|sundown",
        "night": "night|midnight|moonlight|moon|moonlit|starry|stars|starry sky|night sky|nighttime|dark sky|space|galaxy|outer space|milky way"},
    "place": {"cherry": "cherry tree|cherry trees|cherry blossom|cherry blossoms|sakura|blossoms|spring|park|"
        "meadow|field|flower field|grass|grassland|outdoors|garden|flowers|countryside|sunflowers|plains|farm",
        "shrine": "shrine|torii|temple|torii gate|japanese garden|miko|shrine maiden|festival",
        "forest": "forest|woods|trees|jungle|woodland|deep forest|bamboo|enchanted forest|mountain|mountains|fuji|mount fuji|alps|hills|valley|cliff",
        "city": "city|skyline|street|tokyo|cyberpunk|neon|urban|rooftop|town|skyscraper|skyscrapers|cityscape|downtown|alley",
        "beach": "beach|sea|ocean|shore|seaside|coast|island|waves|sand|harbor|lake",
        "room": "room|window|indoors|bedroom|classroom|cafe|library|inside|kitchen|house|interior",
        "plain": "simple background|white background|plain background|grey background|gradient background|studio"},
    "weather": {"rain": "rain|raining|rainy|storm|drizzle|rainstorm|raindrops|typhoon",
        "snow": "snow|snowing|snowy|winter|blizzard|snowflakes|snowfall|christmas",
        "petals": "petals|falling petals|cherry blossom|cherry blossoms|sakura|blossoms", "leaves": "falling leaves|autumn|autumn leaves|leaves|fall colors",
        "fireflies": "fireflies|sparkles|magic|magical|glowing particles|light particles|bokeh|enchanted", "clouds": "cloudy|clouds|cloud|overcast",
        "clear": "clear sky|clear weather|clear|cloudless"},
    "framing": {"close": "close up|closeup|face focus|headshot|extreme close up|portrait of the face", "bust": "upper body|bust|portrait|head and shoulders",
        "cowboy": "cowboy shot|medium shot|knee up|half body|from the waist up|standing|walking",
        "full": "full body|wide shot|full shot|very wide shot|whole body|full length|long shot|head to toe"},
}  # fmt: skip

_USUAL: Mapping[str, str] = {  # what the seed chooses from where the words are silent; a value named twice is likelier
    "person": "girl", "skin": "fair", "hair_style": "loose loose loose twintails ponytail", "hair_length": "long long medium short",
    "hair_color": "silver black brown blonde red pink purple blue aqua green orange", "eye_color": "blue aqua green red purple brown orange pink",
    "expression": "smile smile smile laugh serious shy smug", "clothes": "uniform hoodie dress jacket kimono",
    "clothes_color": "navy red blue green purple pink white", "accent_color": "contrasting", "ornament": "none ribbon flower none", "ears": "none",
    "time": "day day sunset dawn night", "place": "cherry forest city beach shrine", "weather": "clear clouds clouds", "framing": "bust",
}  # fmt: skip
_WITH: Mapping[str, Mapping[str, str]] = {  # what goes with a value settled before
    "boy": {"hair_length": "short", "hair_style": "loose", "ornament": "none", "clothes": "hoodie jacket"},
    "cherry": {"weather": "petals"}, "forest": {"weather": "fireflies clear clouds"},
}  # fmt: skip

_SILENT = (  # words that change nothing: grammar and praise
    "a an and the of in on at with under by to her his she he is are as from wearing has girl boy solo one very "
    "masterpiece best quality high highres absurdres detailed ultra 4k 8k hd anime style art artwork illustration"
)
_COLOUR = "|".join(COLOURS)
_BETWEEN = rf"(?: (?:long|short|medium|very|wavy|curly|straight|messy|flowing|fluffy|silky|shiny|bright|light|deep|and|big|summer|{_COLOUR})){{0,4}}"
_GARMENT = "dress|gown|kimono|yukata|hoodie|sweater|shirt|coat|cloak|cape|jacket|suit|uniform|armou?r|skirt|blazer|sundress|clothes"
_APART: Mapping[str, str] = {  # attributes whose word may stand apart from its noun: "long silver hair"
    "hair_length": rf" (short|medium|long){_BETWEEN} (?:hair|haired) ",
    "hair_color": rf" ({_COLOUR}){_BETWEEN} (?:hair(?! ribbon| bow)|haired|twintails|ponytail|bangs|bob) | hair (?:is |of |like |in )?({_COLOUR}) "
    r"| (redhead|brunette|blonde|blond) ",
    "eye_color": rf" ({_COLOUR}){_BETWEEN} (?:eyes|eyed|eye) | eyes (?:are |of |like )?({_COLOUR}) ",
    "clothes_color": rf" ({_COLOUR}){_BETWEEN} (?:{_GARMENT}) ",
    "accent_color": rf" ({_COLOUR}){_BETWEEN} (?:hair )?(?:scarf|muffler|ribbon|bow|tie|necktie|obi|sash) ",
}


@dataclass(frozen=True, slots=True)
class Traits:
    """What is to be seen, in names; every field is settled."""

    person: str
    skin: str
    hair_color: str
    hair_length: str
    hair_style: str
    eye_color: str
    expression: str
    clothes: str
    clothes_color: str
    accent_color: str
    ornament: str
    ears: str
    time: str
    place: str
    weather: str
    framing: str


def read(prompt: str, negative_prompt: str, seed: int) -> Traits:
    """Settle every attribute: the words first, then what the negative words leave, then chance from seed and unknown words."""
    wanted, more = _without_negations(_plain(prompt))
    refused, unknown = f"{_plain(negative_prompt)}|{more}", _unknown(wanted)
    settled: dict[str, str] = {}
    for name, usual in _USUAL.items():
        for value in settled.values():
            usual = _WITH.get(value, {}).get(name, usual)
        no = _mentioned(name, refused)
        allowed = [value for value in _mentioned(name, wanted) if value not in no][:1] or [value for value in usual.split() if value not in no]
        settled[name] = str(generator(seed, name, unknown).choice(allowed or usual.split()))
    return Traits(**settled)


def generator(seed: int, *keys: str) -> np.random.Generator:
    """Give the generator for one use, the same in every process (Python's own `hash` is not)."""
    digest = hashlib.blake2b("\0".join((str(seed), *keys)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _plain(text: str) -> str:
    """Bring a prompt to words and `|`, heaviest first: `a (silver hair:1.2)` -> ` silver hair | a `."""
    text = re.sub(r"<[^>]*>", ",", text.lower()).replace("\\(", " ").replace("\\)", " ")
    pieces: list[tuple[float, str]] = []
    for piece in re.split(r"(\([^()]*\)|[,.;!?\n|]+)", text):
        weight = re.search(r":\s*([0-9]*\.?[0-9]+)\s*\)$", piece)
        heaviness = float(weight[1]) if weight else 1.1 if piece.startswith("(") else 1.0
        if heaviness > 0:
            words = re.sub(r":\s*[0-9.]+\s*\)$", "", piece)
            pieces += [(heaviness, part) for part in words.split(",")]
    ordered = sorted(pieces, key=lambda piece: -piece[0])
    plain = (" ".join(re.findall(r"[^\W_]+", piece.replace("'", ""))) for _, piece in ordered)
    return "|".join(f" {piece} " for piece in plain)


def _without_negations(text: str) -> tuple[str, str]:
    """Take `no rain` and `without glasses` out of the wishes; `no humans` is a tag and stays."""
    negation = r" (?:no|without|not) (?!humans|people)((?:\w+ )?\w+)(?= )"
    return re.sub(negation, " ", text), "|".join(f" {words} " for words in re.findall(negation, text))


def _mentioned(name: str, text: str) -> list[str]:
    """Name the values of an attribute that the text speaks of, first mention first."""
    said = [(phrase, value) for value, phrases in VOCABULARY.get(name, {}).items() for phrase in phrases.split("|")]
    found = [(text.find(f" {phrase} "), -len(phrase), value) for phrase, value in said]
    for match in re.finditer(_APART.get(name, "(?!)"), text):
        word = next(filter(None, match.groups()))
        found.append((match.start(), 0, COLOURS.get(word, word)))
    return [value for position, _, value in sorted(found) if position >= 0]


def _unknown(text: str) -> str:
    """Keep the words no attribute knows, sorted: they vary what is left open, whatever their order."""
    known = {word for values in VOCABULARY.values() for said in values.values() for phrase in said.split("|") for word in phrase.split()}
    words = set(text.replace("|", " ").split()) - known - set(_SILENT.split()) - set(COLOURS)
    return " ".join(sorted(words))
