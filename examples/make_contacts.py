"""Write contacts.csv: 1,742 people who do not exist, the same ones every time.

    python examples/make_contacts.py > examples/contacts.csv

Every number is from a range that a regulator keeps free for drama; README.md beside
this file says which and where that is written.
"""

import csv
import random
import sys
from collections.abc import Iterator

TOTAL = 1742
TRIGGERS = {"WARMEXAMA": 0.7, "COLDEXAMA": 0.2, "HOTEXAMA": 0.1}
CITIES = {
    "Europe/London": ["London", "Leeds", "Bristol", "Cardiff", "Glasgow", "Belfast"],
    "America/New_York": ["New York", "Boston", "Miami"],
    "America/Chicago": ["Chicago", "Houston"],
}
# Country, area and first digits; how many digits follow; the zone its people live in.
RANGES = [
    ("+447700900", 3, "Europe/London"),
    ("+442079460", 3, "Europe/London"),
    ("+121255501", 2, "America/New_York"),
    ("+161755501", 2, "America/New_York"),
    ("+130555501", 2, "America/New_York"),
    ("+131255501", 2, "America/Chicago"),
    ("+171355501", 2, "America/Chicago"),
]
FIRST = (
    "Aisha Alice Amir Anna Arjun Ben Carlos Chloe Daniel Devi Ella Emma Farah Felix "
    "Grace Hana Hugo Ines Isaac Jasmine Jonas Kavya Layla Leo Liam Lucia Maya Mei "
    "Mia Nadia Noah Nora Olivia Omar Oscar Priya Ravi Rosa Ruby Sam Sara Siti Sofia "
    "Tariq Theo Tom Uma Wei Yusuf Zara "
)
LAST = (
    "Ahmad Bailey Becker Chan Clarke Costa Davies Diaz Evans Fernandes Foster "
    "Garcia Green Hassan Hughes Ibrahim Jones Kaur Khan Kim Kumar Lee Lim Lopez "
    "Martin Meyer Morgan Murphy Nair Nguyen Novak Okafor Patel Perez Quinn Rahman "
    "Reid Rossi Santos Shah Silva Singh Smith Tan Taylor Walker Wong Wright Young "
    "Zhang "
)


def numbers() -> Iterator[tuple[str, str]]:
    for prefix, digits, zone in RANGES:
        for number in range(10**digits):
            yield f"{prefix}{number:0{digits}}", zone


def main() -> None:
    chance = random.Random(1742)
    people = chance.sample(list(numbers()), TOTAL)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["phone", "name", "city", "timezone", "trigger"])
    for phone, zone in people:
        name = f"{chance.choice(FIRST.split())} {chance.choice(LAST.split())}"
        # One in twenty left no name: the templates greet them with "there".
        writer.writerow(
            [
                phone,
                "" if chance.random() < 0.05 else name,
                chance.choice(CITIES[zone]),
                zone,
                *chance.choices(list(TRIGGERS), weights=list(TRIGGERS.values())),
            ]
        )


if __name__ == "__main__":
    main()
