"""Attacks by secrets that are hard to mask."""

from isolation.alpha import Alpha
from isolation.attacks import Containment, attack
from isolation.corpus.workflows import sixteen_times

# Kind 3: masking


@attack(Containment.LINEAR_MASKING, kind=3, in_make_test=True)
def a_secret_that_looks_like_a_mask(alpha: Alpha) -> None:
    """The secret is `********a`, and a step returns it with 64,000 more `a`, so every mask spells it again."""
    alpha.task({"echo": {"activity": "text_template", "template": "{{ secret_params.S }}" + "a" * 64_000}})
    alpha.runs(4, secret_params={"S": "********a"})


@attack(Containment.LINEAR_MASKING, kind=3)
def a_mask_in_a_mebibyte(alpha: Alpha) -> None:
    """The secret is `********a`, and a step returns it followed by 1 MiB of `a`."""
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "a" * 60_000},
            "big": sixteen_times("piece"),
            "echo": {
                "activity": "text_concatenate",
                "texts_path": ["secret_params.S", "big.outputs.text"],
            },
        }
    )
    alpha.run(secret_params={"S": "********a"})


@attack(Containment.LINEAR_MASKING, kind=3)
def a_hundred_secrets(alpha: Alpha) -> None:
    """A run has 100 secrets, as many as it may, and its text of nearly 1 MiB is searched for all spellings of each."""
    secrets = {f"V{number}": f"secret-{number}-{number * 7919 % 10007:05}" for number in range(100)}
    names = [f"secret_params.V{number}" for number in range(100)]
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "secret-1 " * 6_600},
            "mask": {"activity": "text_concatenate", "texts_path": [*["piece.outputs.text"] * 15, *names]},
        }
    )
    alpha.runs(3, secret_params=secrets)


@attack(Containment.LINEAR_MASKING, kind=3)
def secrets_within_one_another(alpha: Alpha) -> None:
    """Alpha's 90 secrets are `aaaa`, `aaaaa` and so on, and the text is 1 MiB of `a`."""
    alpha.environment({f"V{number}": "a" * (4 + number) for number in range(90)})
    names = [f"environment.V{number}" for number in range(90)]
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "a" * 60_000},
            "big": sixteen_times("piece"),
            "mask": {"activity": "text_concatenate", "texts_path": ["big.outputs.text", *names]},
        }
    )
    alpha.begin()
    alpha.runs(3)


@attack(Containment.LINEAR_MASKING, kind=3)
def a_secret_of_many_thousand_letters(alpha: Alpha) -> None:
    """A secret has nearly 60,000 letters and almost matches throughout a text of 1 MiB."""
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "ab" * 30_000},
            "big": sixteen_times("piece"),
            "mask": {
                "activity": "text_concatenate",
                "texts_path": ["big.outputs.text", "secret_params.A"],
            },
        }
    )
    alpha.runs(4, secret_params={"A": "ab" * 29_000 + "c"})


@attack(Containment.LINEAR_MASKING, kind=3)
def secrets_among_thousands_of_texts(alpha: Alpha) -> None:
    """A step that uses 60 secrets returns 100,000 short texts, each of which must be masked."""
    secrets = {f"S{number}": f"secret number {number}" for number in range(60)}
    alpha.task(
        {
            "piece": {"activity": "text_echo", "text": "a," * 30_000},
            "many": {"activity": "text_concatenate", "texts_path": ["piece.outputs.text"] * 4 +
                     [f"secret_params.{name}" for name in secrets]},
            "split": {"activity": "text_split", "separator": ",",
                      "text_path": "many.outputs.text"},
        }
    )  # fmt: skip
    alpha.runs(4, secret_params=secrets)
