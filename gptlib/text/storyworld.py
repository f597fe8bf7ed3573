"""A made world that tells tales: a simulator draws facts and writes them down in English.

Each tale is a list of facts (who, what, where, in which order) and the sentences that tell them.
Because the facts are known, `gptlib.text.storyreader` can read a text back and count where it
contradicts itself; because every choice is drawn evenly from a list, the information in a tale is
known too. The idea of a small world for small models is that of TinyStories (Eldan and Li, 2023,
arXiv:2305.07759), whose tales a large model wrote: nobody knows their facts. Here nobody has to.

`python -m gptlib.text.storyworld FOLDER` writes the two files that `python -m gptlib train` reads:
tales.txt (2,000 tales; the command holds every tenth out) and more.txt (more to learn from).
"""

import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from gptlib.text.corpora import write_documents

Choice = TypeVar("Choice")
TOLD, MORE, TEST = 2_000, 58_000, 10**9  # tales in tales.txt, in more.txt; the first test tale

NAMES = {name: sex for sex, names in (
    ("he", "Tom Ned Ben Max Sam Hugo Otto Felix Oscar Leo Jack Finn Paul Emil Toby Rufus Jasper "
           "Milo Basil Hans Albert Simon Victor Walter Casper Bruno Edgar Harry"),
    ("she", "Anna Mia Ida Nora Lily Rosa Emma Clara Greta Ella Ruby Daisy Hazel Molly Polly Tilda "
            "Wanda Flora Pearl Lucy Alice Bella Dora Edith Fanny Holly Judith "
            "Mabel")) for name in names.split()}
KINDS = ("fox hare bear mouse owl badger hedgehog squirrel otter frog goose duck goat lamb donkey "
         "pony cat dog raven robin mole beaver deer turtle piglet weasel heron calf miller baker "
         "tailor shepherd sailor gardener painter postman").split()
HEROES = KINDS[:27]  # animals; people only come by
TRAITS = ("little merry shy curious gentle clever stubborn cheerful sleepy polite proud tiny brave "
          "dreamy hungry").split()
MANNERS = "old kind wise tall quiet friendly lonely round lame busy".split()
PLACES = {noun: word for word, nouns in (
    ("in", "forest valley orchard meadow tower garden village barn castle vineyard "
           "park chapel"),
    ("at", "mill market lighthouse harbour well inn bridge school station"),
    ("on", "hill island moor farm beach"),
    ("by", "lake sea waterfall pond")) for noun in nouns.split()}
COLOURS = ("red blue green yellow silver golden white striped wooden painted purple crooked "
           "shiny").split()
THINGS = ("kite ball drum bell ring scarf hat flute book cup doll top whistle basket button shell "
          "umbrella fiddle mitten crown mirror pillow teapot feather clock puppet ribbon thimble "
          "postcard").split()
# what blocks the way: (with its article, how one passes it, the one tool that helps)
OBSTACLES = {
    "river": ("a wide river", "get across", "boat"),
    "wall": ("a high wall", "get over", "ladder"),
    "gate": ("a locked gate", "get in", "key"),
    "hedge": ("a hedge of thorns", "cut a way", "knife"),
    "tunnel": ("a dark tunnel", "see the way", "lantern"),
    "cliff": ("a steep cliff", "climb up", "rope"),
    "snow": ("deep snow", "dig a path", "shovel"),
    "bog": ("a deep bog", "keep dry feet", "plank"),
    "gander": ("an angry gander", "slip past", "trumpet"),
    "fog": ("a thick fog", "find the way", "compass"),
}
TOOLS = [tool for _, _, tool in OBSTACLES.values()]
FOODS = ["jar of honey", "basket of apples", "bag of nuts", "bowl of cherries", "loaf of bread",
         "piece of cheese", "bunch of carrots", "pot of soup", "slice of cake", "plate of pancakes",
         "dish of dumplings", "glass of milk"]
SIGHTS = ["two hens quarrelling about the weather", "a snail that carried a letter",
          "seven ants with a crumb", "a scarecrow in a new coat", "clouds shaped like sheep",
          "a cart full of turnips", "an empty nest in a birch", "smoke above a distant roof",
          "a spider mending its web", "three ladybirds on one leaf", "a rainbow over the fields",
          "a hen with eleven chicks", "footprints as large as plates", "the first violets",
          "a sign that nobody could read", "a pumpkin rolling downhill", "bees in a linden tree",
          "an old boot with moss inside", "a kettle hanging from a branch"]
TIMES = [f"One {weather} {hour}" for weather in "windy sunny rainy cold warm misty quiet".split()
         for hour in ("morning", "day", "afternoon")]


def article(words: str) -> str:
    """The words with "a" or "an" before them: "an old owl"."""
    return ("an " if words[0] in "aeiou" else "a ") + words


@dataclass(frozen=True)
class Person:
    """Somebody in a tale. The attributes are the forms in which sentences name them."""

    name: str
    trait: str
    kind: str

    def __str__(self) -> str:
        return self.name

    who = property(lambda person: article(f"{person.trait} {person.kind}"))  # on a first meeting
    he = property(lambda person: NAMES[person.name])
    He = property(lambda person: person.he.capitalize())
    him = property(lambda person: {"he": "him", "she": "her"}[person.he])
    his = property(lambda person: {"he": "his", "she": "her"}[person.he])
    His = property(lambda person: person.his.capitalize())
    self = property(lambda person: f"{person.him}self")


@dataclass(frozen=True)
class Place:
    """Somewhere: "the mill", "at the mill", "At the mill", "to the mill"."""

    noun: str

    def __str__(self) -> str:
        return f"the {self.noun}"

    at = property(lambda place: f"{PLACES[place.noun]} the {place.noun}")
    At = property(lambda place: place.at.capitalize())
    to = property(lambda place: f"to the {place.noun}")


@dataclass(frozen=True)
class Thing:
    """Something to hold: "red kite", "a red kite"."""

    noun: str

    def __str__(self) -> str:
        return self.noun

    a = property(lambda thing: article(thing.noun))


@dataclass(frozen=True)
class Obstacle:
    """Something in the way: "river", "a wide river", and how one passes it: "get across"."""

    noun: str

    def __str__(self) -> str:
        return self.noun

    a = property(lambda obstacle: OBSTACLES[obstacle.noun][0])
    past = property(lambda obstacle: OBSTACLES[obstacle.noun][1])


# The sentences: for each event its wordings. A field is a role of the tale in one of its forms.
SENTENCES = {
    "open": ["Once upon a time there was {hero.who} named {hero}, who lived {home.at}.",
             "Once upon a time, {home.at}, there lived {hero.who} named {hero}.",
             "Once upon a time {hero.who} lived {home.at}. {hero.His} name was {hero}."],
    "love": ["Of all the things {hero} owned, {hero.he} loved {hero.his} {thing} best.",
             "{hero} had {thing.a} and took it everywhere, even to bed.",
             "{hero.His} greatest treasure was {thing.a}.",
             "{hero.His} grandfather had left {hero.him} {thing.a}, and {hero} polished it every "
             "Sunday."],
    "lose": ["{time} {hero} went {place.to} to play, and there the {thing} was lost.",
             "{time} {hero} came home without the {thing}. It must have stayed behind {place.at}.",
             "{time} a great wind came, took the {thing} and carried it {place.to}.",
             "{time} a magpie stole the {thing}, flew {place.to} and forgot it there."],
    "friend": ["{hero.His} best friend was {friend}, {friend.who}, who lived {place.at}.",
               "{place.At} lived {hero.his} best friend, {friend.who} named {friend}.",
               "{hero} had known {friend}, {friend.who}, for as long as they could remember. "
               "{friend} lived {place.at}."],
    "gift": ["{time} it was {friend}'s birthday, and {hero} had made {thing.a} for {friend.him}.",
             "{time} {hero} heard that {friend} was ill. \"I will bring {friend.him} {thing.a},\" "
             "said {hero}.",
             "{time} {hero} remembered a promise: {friend} was to have {thing.a} before winter "
             "came."],
    "wish": ["{hero} wished for nothing so much as {thing.a}.",
             "Every night {hero} dreamed of {thing.a}.",
             "All the others had {thing.a}. Only {hero} had none.",
             "\"If only I had {thing.a}!\" {hero} said to the moon."],
    "rumour": ["{time} a swallow told {hero.him} that there was one {place.at}.",
               "\"There is one {place.at},\" said {hero.his} grandmother, \"and it belongs to "
               "whoever finds it.\"",
               "{time} {hero} heard two sailors speak of one that lay {place.at}."],
    "set out": ["So the {hero.kind} set off {place.to}.",
                "\"Then I will go {place.to},\" said {hero}, and off {hero.he} went.",
                "The {hero.kind} did not wait a moment and ran {place.to}.",
                "{hero} put a crust of bread in {hero.his} pocket and started on the long road "
                "{place.to}."],
    "see": ["On the way {hero.he} saw {sight}.", "The {hero.kind} passed {sight}.",
            "{hero.He} stopped only once, to look at {sight}."],
    "block": ["But in front of {place} there was {obstacle.a}, and {hero} could not "
              "{obstacle.past}.",
              "But the way was blocked by {obstacle.a}. {hero} tried and tried and could not "
              "{obstacle.past}.",
              "Halfway there {hero.he} came to {obstacle.a}. \"I shall never {obstacle.past},\" "
              "said {hero}."],
    "sad": ["{hero.He} sat down on a stone and cried.",
            "The {hero.kind} sighed so loudly that the birds fell silent.",
            "{hero.He} walked up and down and did not know what to do.",
            "\"Think, {hero}, think,\" {hero.he} told {hero.self}, but no thought came."],
    "wrong": ["{other.who} named {other} came by and offered {hero.him} {wrong.a}. But what use is "
              "{wrong.a} against {obstacle.a}?",
              "\"Take my {wrong},\" said {other}, {other.who}. It was kindly meant, but with "
              "{wrong.a} nobody can {obstacle.past}."],
    "meet": ["Then {helper.who} came along, whose name was {helper}.",
             "Just then {hero} met {helper.who} named {helper}.",
             "\"Who is standing in the road?\" asked a voice. It was {helper}, {helper.who}.",
             "At that moment somebody coughed. It was {helper.who} named {helper}."],
    "ask": ["\"What is the matter?\" asked {helper}.",
            "\"Why the long face?\" asked the {helper.kind}.",
            "\"Can I help you?\" asked the {helper.kind}."],
    "tell lost": ["\"My {thing} is {place.at}, and I cannot {obstacle.past},\" said {hero}.",
                  "{hero} told {helper.him} about the {thing} and the {obstacle}."],
    "tell gift": ["\"I must bring this {thing} to {friend}, and I cannot {obstacle.past},\" said "
                  "{hero}.",
                  "{hero} told {helper.him} about {friend} and the {obstacle}."],
    "tell wish": ["\"There is {thing.a} {place.at}, and I cannot {obstacle.past},\" said {hero}.",
                  "{hero} told {helper.him} of {hero.his} wish and of the {obstacle}."],
    "trade": ["\"I have {tool.a},\" said the {helper.kind}, \"but I am hungry. Bring me {food.a}, "
              "and you shall have it.\"",
              "\"Against {obstacle.a} you need {tool.a}, and I own one,\" said {helper}. \"It is "
              "yours for {food.a}.\"",
              "\"Nothing is free,\" said the {helper.kind}. \"But for {food.a} I would give you "
              "{tool.a}.\""],
    "fetch": ["{hero} ran {fetch.to}, found {food.a} and brought it back to the {helper.kind}.",
              "{fetch.At} {hero} worked for an hour and was given {food.a} for it. {helper} ate it "
              "all up.",
              "\"I know where to find that,\" said {hero}, and ran {fetch.to}. Soon {hero.he} was "
              "back with {food.a}, and the {helper.kind} had a good meal."],
    "give": ["Then the {helper.kind} gave {hero.him} the {tool}.",
             "\"A promise is a promise,\" said {helper}, and handed {hero} the {tool}.",
             "The {helper.kind} laughed and fetched the {tool}."],
    "lend": ["\"How lucky that I have {tool.a} with me,\" said the {helper.kind}. \"Take it.\"",
             "{helper} thought for a while. Then {helper.he} opened {helper.his} bag and took out "
             "{tool.a}. \"Try this,\" said the {helper.kind}."],
    "use": ["With the {tool} it was easy to {obstacle.past}.",
            "The {hero.kind} took the {tool}, and at last {hero.he} could {obstacle.past}.",
            "Together they went back to the {obstacle}, and with the {tool} they could "
            "{obstacle.past}."],
    "find": ["And there, {place.at}, lay the {thing}.",
             "{place.At} the {hero.kind} looked under every stone and found the {thing}.",
             "Something shone {place.at}. It was the {thing}, and {hero} danced around it."],
    "deliver": ["{friend} was at the door {place.at}. \"Is the {thing} for me?\" {friend.he} "
                "asked, and laughed for joy.",
                "{place.At} {hero} gave {friend} the {thing}. \"It is the best present of my "
                "life,\" said the {friend.kind}.",
                "{friend} had been looking out of the window all day. When {friend.he} held the "
                "{thing} in {friend.his} hands, {place} seemed twice as bright."],
    "thank": ["\"Without you I could not have done it,\" said {hero} to {helper}.",
              "{hero} gave the {tool} back to the {helper.kind} and thanked {helper.him} three "
              "times.",
              "\"That was fun,\" said {helper}. \"Let us do it again.\"",
              "\"How can I thank you?\" asked {hero}. \"You just did,\" said the "
              "{helper.kind}."],
    "return": ["That evening {hero} walked back {home.to} and sang all the way.",
               "It was dark when the {hero.kind} came home, but nobody {home.at} was happier.",
               "The stars were out when {hero} came back {home.to}, tired and proud."],
    "end": ["From that day on {hero} and {helper} were the best of friends.",
            "And that is how {hero} the {hero.kind} and {helper} the {helper.kind} became friends.",
            "Ever since, {hero} stops and helps when somebody cannot {obstacle.past}.",
            "And whenever {helper} comes to visit, they tell the tale of the {obstacle}.",
            "And if you ever pass {home}, knock at {hero}'s door and ask about the {obstacle}."],
}
NEW_PARAGRAPH = ("set out", "meet", "fetch", "use", "return")  # these events begin one
PLOTS = {"lost": ("love", "lose"), "gift": ("friend", "gift"), "wish": ("wish", "rumour")}


@dataclass(frozen=True)
class Fact:
    """One event with its roles, such as Fact("give", {"helper": .., "hero": .., "tool": ..})."""

    event: str
    roles: dict[str, Person | Place | Thing | Obstacle | str]


@dataclass(frozen=True)
class Tale:
    """A tale as facts and as text; `nats` is the information in the choices that made it."""

    facts: list[Fact]
    text: str
    nats: float


@dataclass
class _Dice:
    """Draws evenly from lists, and adds up the information of the draws: ln of their lengths."""

    random: random.Random
    nats: float = 0.0
    drawn: set = field(default_factory=set)

    def one(self, options: Sequence[Choice]) -> Choice:
        """One of the options."""
        self.nats += math.log(len(options))
        return self.random.choice(options)

    def another(self, options: Sequence[Choice]) -> Choice:
        """One that was not drawn before in this tale."""
        option = self.one([option for option in options if option not in self.drawn])
        self.drawn.add(option)
        return option


def tell(seed: int) -> Tale:
    """The tale number `seed`: the same seed tells the same tale everywhere."""
    dice = _Dice(random.Random(seed))
    plot = dice.one(list(PLOTS))
    obstacle = dice.one(list(OBSTACLES))
    roles = {"hero": Person(dice.another(list(NAMES)), dice.one(TRAITS), dice.another(HEROES)),
             "helper": Person(dice.another(list(NAMES)), dice.one(MANNERS), dice.another(KINDS)),
             "home": Place(dice.another(list(PLACES))), "place": Place(dice.another(list(PLACES))),
             "thing": Thing(f"{dice.one(COLOURS)} {dice.one(THINGS)}"),
             "obstacle": Obstacle(obstacle), "tool": Thing(OBSTACLES[obstacle][2]),
             "time": dice.one(TIMES), "sight": dice.one(SIGHTS)}
    events = ["open", *PLOTS[plot], "set out", "see", "block", *dice.one([[], ["sad"]])]
    if plot == "gift":
        roles["friend"] = Person(dice.another(list(NAMES)), dice.one(TRAITS), dice.another(HEROES))
    if dice.one([True, False]):
        roles["other"] = Person(dice.another(list(NAMES)), dice.one(MANNERS), dice.another(KINDS))
        roles["wrong"] = Thing(dice.one([t for t in TOOLS if t != OBSTACLES[obstacle][2]]))
        events.append("wrong")
    events += ["meet", "ask", f"tell {plot}"]
    if dice.one([True, False]):
        roles["food"], roles["fetch"] = Thing(dice.one(FOODS)), Place(dice.another(list(PLACES)))
        events += ["trade", "fetch", "give"]
    else:
        events.append("lend")
    events += ["use", "deliver" if plot == "gift" else "find", "thank", "return", "end"]
    return _written(events, roles, dice)


def tales(count: int, first: int = 0) -> Iterator[Tale]:
    """The tales number `first` to `first + count - 1`."""
    return map(tell, range(first, first + count))


def _written(events: Sequence[str], roles: dict, dice: _Dice) -> Tale:
    facts, text = [], ""
    for event in events:
        sentence = dice.one(SENTENCES[event]).format(**roles)
        sentence = sentence[0].upper() + sentence[1:]
        between = "\n\n" if event in NEW_PARAGRAPH else " "
        text += (between if text else "") + sentence
        facts.append(Fact(event, roles))
    return Tale(facts, text, dice.nats)


def write(folder: Path) -> None:
    """Write tales.txt and more.txt, with <|endoftext|> between the tales."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, first in (("tales.txt", TOLD, 0), ("more.txt", MORE, TOLD)):
        write_documents(folder / name, [tale.text for tale in tales(count, first)])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("expected one folder: python -m gptlib.text.storyworld runs/tales-data")
    write(Path(sys.argv[1]))
    print(f"written to {sys.argv[1]}: tales.txt and more.txt")
