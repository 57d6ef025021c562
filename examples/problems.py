"""Word problems of the example corpus, with answers worked out here and so right by construction.

Each template takes a `slip` first, which is added to the first intermediate result: with slip 0 the answer is
right, with another slip the error is carried through to the end, as a real mistake is. The question does not
depend on the slip.
"""

from collections.abc import Callable, Iterator

QuestionAndAnswer = tuple[str, str]


def share_of(slip: int, percent: int, whole: int) -> QuestionAndAnswer:
    one = whole // 100 + slip
    return (
        f"What is {percent} percent of {whole}? Show the step.",
        f"One percent of {whole} is {one}, so {percent} percent is {percent} x {one} = {percent * one}.",
    )


def discount(slip: int, item: str, price: int, percent: int) -> QuestionAndAnswer:
    off = price * percent // 100 + slip
    return (
        f"A {item} costs ${price}. What does it cost at {percent} % off?",
        f"The discount is {percent} % of ${price}, which is ${off}. The price becomes ${price - off}.",
    )


def fahrenheit(slip: int, celsius: int) -> QuestionAndAnswer:
    scaled = celsius * 9 / 5 + slip
    result = f"{scaled + 32:g}"
    return (
        f"Convert {celsius} °C to Fahrenheit and show your working.",
        f"{celsius} x 9 / 5 = {scaled:g}, and {scaled:g} + 32 = {result}. So {celsius} °C are {result} °F.",
    )


def change(slip: int, name: str, count: int, item: str, price: int, paid: int) -> QuestionAndAnswer:
    cost = count * price + slip
    return (
        f"{name} buys {count} {item} at ${price} each and pays with ${paid}. How much is the change?",
        f"The {item} cost {count} x ${price} = ${cost}. The change is ${paid} - ${cost} = ${paid - cost}.",
    )


def journey(slip: int, who: str, speed: int, hours: int, rest: int) -> QuestionAndAnswer:
    first = speed * hours + slip
    return (
        f"{who} travels for {hours} hours at {speed} km/h and then another {rest} km through a town. "
        "How long is the whole trip?",
        f"The first part is {speed} x {hours} = {first} km. "
        f"With the last {rest} km that makes {first} + {rest} = {first + rest} km.\n\n"
        f"Answer: {first + rest} km",
    )


def sharing(slip: int, place: str, total: int, broken: int, children: int) -> QuestionAndAnswer:
    left = total - broken + slip
    return (
        f"{place} has {total} crayons, of which {broken} are broken. "
        f"The rest are shared equally among {children} children. How many does each child get?",
        f"First take away the broken ones: {total} - {broken} = {left}. "
        f"Then divide by {children}: {left} / {children} = {left // children}. "
        f"Each child gets {left // children}.",
    )


def saving(slip: int, name: str, start: int, weekly: int, goal: int, thing: str) -> QuestionAndAnswer:
    missing = goal - start + slip
    return (
        f"{name} has {start} euros and saves {weekly} euros every week. "
        f"After how many weeks can {name} buy a {thing} for {goal} euros?",
        f"{name} still needs {goal} - {start} = {missing} euros. "
        f"At {weekly} euros a week that takes {missing} / {weekly} = {missing // weekly} weeks.",
    )


def ages(slip: int, younger: str, older: str, gap: int, total: int) -> QuestionAndAnswer:
    twice = total - gap + slip
    return (
        f"{older} is {gap} years older than {younger}. Together they are {total} years old. "
        "How old is each of them?",
        f"Let {younger} be x years old. Then {older} is x + {gap}, and together 2x + {gap} = {total}. "
        f"So 2x = {twice} and x = {twice // 2}. {younger} is {twice // 2} and {older} is {twice // 2 + gap}.",
    )


def recipe(slip: int, dish: str, grams: int, people: int, guests: int) -> QuestionAndAnswer:
    each = grams // people + slip
    return (
        f"A recipe for {dish} uses {grams} g of flour for {people} people. "
        f"How much flour is needed for {guests} people?",
        f"Per person: {grams} g / {people} = {each} g. "
        f"For {guests} people: {guests} x {each} g = {guests * each} g.",
    )


def rectangle(slip: int, length: int, width: int) -> QuestionAndAnswer:
    return (
        f"Find the area of a rectangle {length} m long and {width} m wide.",
        f"The area is length times width: {length} m x {width} m = {length * width + slip} square metres.",
    )


def third_angle(slip: int, a: int, b: int) -> QuestionAndAnswer:
    known = a + b + slip
    return (
        f"Two angles of a triangle are {a} and {b} degrees. What is the third?",
        "The angles of a triangle add up to 180 degrees, "
        f"so the third is 180 - {known} = {180 - known} degrees.",
    )


def equation(slip: int, factor: int, root: int, shift: int) -> QuestionAndAnswer:
    total, rest = factor * root + shift, factor * root + slip
    sign, inverse = ("+", "Subtract") if shift > 0 else ("-", "Add")
    return (
        f"Solve for x: {factor}x {sign} {abs(shift)} = {total}",
        f"{inverse} {abs(shift)} on both sides: {factor}x = {rest}. "
        f"Divide by {factor}: x = {rest // factor}.",
    )


def mean(slip: int, *numbers: int) -> QuestionAndAnswer:
    total, count = sum(numbers) + slip, len(numbers)
    return (
        f"Calculate the mean of {', '.join(map(str, numbers))}.",
        f"The sum is {total} and there are {count} numbers, "
        f"so the mean is {total} / {count} = {total // count}.",
    )


def ending(slip: int, what: str, start: int, minutes: int) -> QuestionAndAnswer:
    """`start` counts the minutes since midnight."""
    end = start + minutes + slip
    return (
        f"{what} starts at {start // 60}:{start % 60:02d} and takes {minutes} minutes. When does it end?",
        f"{what} ends at {end // 60}:{end % 60:02d}.",
    )


# Each entry is a slip and the template's other arguments; the slips keep the divisions without remainder.
PROBLEMS: dict[Callable[..., QuestionAndAnswer], list[tuple[int | str, ...]]] = {
    share_of: [(2, 15, 400), (-3, 7, 1200), (4, 35, 2000)],
    discount: [(-8, "jacket", 80, 25), (6, "desk lamp", 45, 20), (9, "tent", 240, 15)],
    fahrenheit: [(10, 20), (36, -10)],
    change: [
        (-4, "Nadia", 6, "notebooks", 3, 20),
        (8, "Mr. Oduya", 4, "light bulbs", 7, 50),
        (5, "Lukas", 9, "postcards", 2, 30),
    ],
    journey: [
        (40, "A coach", 80, 3, 12),
        (-10, "A cyclist", 18, 4, 5),
        (30, "A delivery van", 65, 2, 21),
    ],
    sharing: [(14, "A kindergarten", 96, 12, 7), (-24, "The art room", 150, 6, 12)],
    saving: [
        (45, "Yusuf", 40, 15, 190, "used bicycle"),
        (-16, "Greta", 25, 8, 105, "telescope"),
        (60, "Pilar", 60, 20, 300, "guitar"),
    ],
    ages: [(8, "Ida", "Marco", 4, 30), (12, "Tomás", "Aunt Rosa", 26, 58), (-6, "Wen", "Otto", 3, 27)],
    recipe: [(15, "pancakes", 240, 4, 10), (-20, "flat bread", 450, 6, 8), (25, "dumplings", 300, 5, 12)],
    rectangle: [(10, 9, 6), (-50, 25, 12)],
    third_angle: [(20, 50, 60), (-15, 35, 90)],
    equation: [(6, 3, 7, 5), (-10, 5, 4, -8), (4, 2, 11, 9)],
    mean: [(5, 4, 8, 6, 10, 2), (6, 12, 15, 21), (-20, 70, 80, 90, 60)],
    ending: [
        (60, "The film", 19 * 60 + 45, 110),
        (-15, "The lesson", 8 * 60 + 20, 45),
        (40, "The flight", 13 * 60 + 35, 150),
    ],
}


def solved_problems() -> Iterator[tuple[str, str, str, str]]:
    """Yields (family, question, right answer, wrong answer)."""
    for template, cases in PROBLEMS.items():
        for slip, *values in cases:
            question, right = template(0, *values)
            _, wrong = template(slip, *values)
            yield template.__name__, question, right, wrong
