"""What augmentation must know of a language: its function words, and where the next word's first letter matters."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from affinage.data.words import split_words
from affinage.errors import InputError, unknown


@dataclass(frozen=True)
class Language:
    """Function words are never replaced. All words here are in lower case, with straight apostrophes."""

    name: str
    stop_words: frozenset[str]
    before_vowel: frozenset[str]
    """words that only stand before a vowel"""
    before_consonant: frozenset[str]
    """words that another form replaces before a vowel"""
    unsure: str
    """first letters that stand behind either: they are put behind neither"""


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_FRENCH = Language(
    name="fr",
    stop_words=_words(
        "le la les un une des du de au aux",
        "ce cet cette ces mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs",
        "je tu il elle on nous vous ils elles me te se moi toi lui soi eux en y",
        "ceci cela ça celui celle ceux celles qui que quoi dont où lequel laquelle lesquels lesquelles",
        "auquel auxquels auxquelles duquel desquels desquelles quel quelle quels quelles",
        "aucun aucune chaque plusieurs quelque quelques tout toute tous toutes tel telle tels telles",
        "autre autres même mêmes certains certaines nul nulle rien personne quiconque",
        "et ou mais donc or ni car si comme quand lorsque puisque quoique tandis afin parce pourquoi comment combien",
        "à dans par pour sur sous avec sans entre vers chez dès depuis pendant avant après devant derrière contre",
        "malgré selon parmi hors outre jusque jusqu envers sauf voici voilà près loin",
        "ne pas plus moins jamais point guère non oui très trop peu assez aussi encore déjà ainsi alors",
        "ici là puis ensuite toujours souvent seulement presque tant tellement",
        "être suis es est sommes êtes sont étais était étions étiez étaient fus fut fûmes furent",
        "serai seras sera serons serez seront serais serait serions seriez seraient sois soit soyons soyez soient",
        "fût été étant",
        "avoir ai as a avons avez ont avais avait avions aviez avaient eus eut eûmes eurent eu eue eus eues ayant",
        "aurai auras aura aurons aurez auront aurais aurait aurions auriez auraient aie aies ait ayons ayez aient eût",
        "faire fait va vont peut peuvent doit doivent",
    ),
    before_vowel=_words(
        "c' d' j' l' m' n' s' t' qu' jusqu' lorsqu' puisqu' quoiqu' cet bel nouvel vieil",
    ),
    before_consonant=_words(
        "le la de du au je me te se ce ne que ma ta sa jusque lorsque puisque quoique beau nouveau vieux",
    ),
    unsure="hy",
)

_ENGLISH = Language(
    name="en",
    stop_words=_words(
        "a an the this that these those my your his her its our their mine yours hers ours theirs",
        "i you he she it we they me him us them myself yourself himself herself itself ourselves yourselves themselves",
        "who whom whose which what whoever whatever where when why how",
        "all any both each either neither every few many more most much some such no none other another own same",
        "and or but nor so yet if unless because as while until although though since whether than",
        "several of in on at by for with without about against between among into onto through throughout during",
        "before after above below under over to from up down out off upon toward towards across along around behind",
        "beside besides beyond near within per via",
        "not never only just very too also even still again then there here now once ever already almost quite rather",
        "be am is are was were been being have has had having do does did doing done",
        "can could may might must shall should will would ought cannot",
        "yes s t d m ll re ve",
    ),
    before_vowel=_words("an"),
    before_consonant=_words("a"),
    unsure="hu",
)

LANGUAGES: Mapping[str, Language] = {language.name: language for language in (_FRENCH, _ENGLISH)}

_LOOKED_AT = 2_000
"""Texts that tell the language."""


def language_named(name: str) -> Language:
    """Raises: InputError for a language without a list of function words."""
    if name not in LANGUAGES:
        raise InputError(unknown("language", name, LANGUAGES))
    return LANGUAGES[name]


def language_of(texts: Iterable[str]) -> Language:
    """The language whose function words are the more frequent ones; French where that is equal."""
    seen = Counter(text[a:b].casefold() for text in islice(texts, _LOOKED_AT) for a, b in split_words(text))
    return max(LANGUAGES.values(), key=lambda language: sum(seen[word] for word in language.stop_words))
