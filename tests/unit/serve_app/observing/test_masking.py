from __future__ import annotations

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from serve_app.observing.masking import MARGIN, MASK, Masker

MASKER = Masker()
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
BODY = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"] * 20)
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"

# What stands around a secret, and the secret; the parts of the text outside of it are to stay.
SECRETS = {
    "openai": ("use {} please", "sk-proj-Ab3dEf6hIj9kLmN0pQrStUvWx"),
    "anthropic": ("{}", "sk-ant-api03-Zz9yY8xX7wW6vV5uU4tT3sS2"),
    "openai-after-a-dash": ("--{}", "sk-A1b2C3d4E5f6G7h8I9j0"),
    "manta": ("key {}.", "manta_ann_3q2-7wAbCdEfGhIjKlMnOpQrStUvWxYz01"),
    "aws-key-id": ("id {} is", "AKIAIOSFODNN7EXAMPLE"),
    "aws-secret": ("aws_secret_access_key = {}\nregion", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    "github": ("clone with {} now", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    "github-fine": ("{}", "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz"),
    "gitlab": ("{} is it", "glpat-Xy12Zw34Vu56Ts78Rq90"),
    "slack": ("bot {}", "xoxb-123456789012-abcdefGHIJKL"),
    "google": ("maps {} key", "AIzaSyA1234567890abcdefghijklmnopqrstuv"),
    "hugging-face": ("login {}", "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"),
    "stripe": ("pay {}", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
    "jwt": ("token here {} ok", JWT),
    "bearer": ("curl -H 'Authorization: Bearer {}'", "c2VjcmV0LXRva2VuLTEyMzQ1Ng=="),
    "bare-bearer": ("it says bearer {} there", "mF_9.B5f-4.1JqM.mF_9.B5f"),
    "basic": ("Authorization: Basic {}", "dXNlcjpwYXNzd29yZA=="),
    "pem": ("here\n{}\nthere", PEM),
    "pem-without-an-end": ("here\n{}", PEM[:900]),
    "pem-in-a-field": ("private_key: {}\nmore", PEM),
    "url": ("postgres://{}@db.example/x", "admin:s3cr3t!pw"),
    "password": ("password: {}\nnext", "hunter22"),
    "quoted-password": ('{{"password": "{}"}}', "correct horse battery staple"),
    "password-with-a-quote": ('password = "{}" and', 'ab\\"cd ef'),
    "quoted-by-one": ("'client_secret': '{}'", "it is long"),
    "raw-authorization": ("authorization: {}", "0123456789abcdef"),
    "escaped-json": ('{{\\"api_key\\": \\"{}\\"}}', "abcdef123456"),
    "env": ("export OPENAI_API_KEY={} && run", "whatever-it-is"),
    "azure": ("AccountName=x;AccountKey={};End", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6"),
    "mail": ("write to {} soon", "ann.lee+x@mail.example.org"),
    "card": ("card {}.", "4111 1111 1111 1111"),
    "card-in-one": ("card {}.", "5555555555554444"),
    "card-after-a-number": ("12 {} 07", "4111-1111-1111-1111"),
    "amex": ("{}", "3782 822463 10005"),
}

HARMLESS = {
    "prose": "The quick brown fox jumps over the lazy dog.",
    "token-count": "max_tokens: 256, and 1,024 tokens were read",
    "token-word": "A token is a piece of a word.",
    "password-word": "How do I reset my password? The password field is empty.",
    "sk-learn": "pip install sk-learn-like-things-without-numbers",
    "hash": "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "digits-that-are-no-card": "order 4111 1111 1111 1112",
    "long-number": "1234567890123456",
    "date-and-time": "2026-11-27T02:10:21.351Z and 2026-11-27 02:10",
    "url": "https://example.org:8443/a/b?c=d#e",
    "handle": "ask @ann about it",
    "bearer-word": "the bearer of this letter",
    "code": "if key == value: return tokens[0]",
    "public-key": "-----BEGIN PUBLIC KEY----- MIIB -----END PUBLIC KEY-----",
    "phone": "+41 44 668 18 00",
    "unicode": "Schlüssel, 鍵, 🔑",
}


@pytest.mark.parametrize(("around", "secret"), SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_masked_and_what_stands_around_it_stays(around: str, secret: str) -> None:
    assert MASKER.mask([around.format(secret)]) == [around.format(MASK)]


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_is_no_secret_stays(text: str) -> None:
    assert MASKER.mask([text]) == [text]


def test_what_an_operator_names_is_masked_too() -> None:
    masker = Masker(["EMP-[0-9]{6}", "(?i)project hydra"])
    assert masker.mask(["EMP-123456 is on Project Hydra", "EMP-12"]) == [f"{MASK} is on {MASK}", "EMP-12"]


def test_half_a_pair_of_surrogates_is_no_obstacle() -> None:
    assert Masker(["b+"]).mask(["a\ud800b"]) == [f"a?{MASK}"]


ALNUM = string.ascii_letters + string.digits
TOKENS = st.text(ALNUM, min_size=24, max_size=60)
PLANTED = st.one_of(
    TOKENS.map(lambda t: f"sk-{t}1"),
    TOKENS.map(lambda t: f"manta_ann_{t}"),
    TOKENS.map(lambda t: f"ghp_{t}"),
    TOKENS.map(lambda t: f"hf_{t}"),
    TOKENS.map(lambda t: f"eyJ{t}.{t}.{t}"),
    st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16).map(lambda t: f"AKIA{t}"),
    TOKENS.map(lambda t: f"-----BEGIN PRIVATE KEY-----\n{t}\n{t}\n-----END PRIVATE KEY-----"),
)
PROSE = st.text(st.characters(codec="utf-8"), max_size=200)


@given(before=PROSE, secret=PLANTED, after=PROSE)
def test_a_planted_secret_is_never_in_what_comes_out(before: str, secret: str, after: str) -> None:
    [masked] = MASKER.mask([f"{before} {secret} {after}"])
    assert secret not in masked


@given(filler=st.integers(0, 80), secret=PLANTED, chars=st.integers(1, 80))
def test_no_cut_lets_half_a_secret_through(filler: int, secret: str, chars: int) -> None:
    body = re.sub(r"-----[A-Z ]+-----|sk-|manta_ann_|ghp_|hf_|eyJ|AKIA", "", secret).split()[0]
    assume(len(set(body)) > 8)
    [head] = MASKER.heads([f"{'x' * filler} {secret} {'y ' * 100}"], [chars])
    assert len(head) <= chars
    assert body[:8] not in head


@pytest.mark.parametrize("beyond", [0, 5, 20, 40])
def test_a_secret_at_the_end_of_what_is_read_is_not_moved_into_sight(beyond: int) -> None:
    chars, secret = 1000, "sk-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    # Masking shortens the keys before it by far more than the cut lets through.
    text = f"{PEM}\n" * 4
    text += "x " * ((chars + MARGIN - len(text) - beyond) // 2) + secret + " y" * 100
    [head] = MASKER.heads([text], [chars])
    assert secret[:4] not in head


ATTACKS = {
    "shapes": "sk-" * 5000,
    "mail": "a." * 5000,
    "digits": "4 " * 5000,
    "keys": "-----BEGIN RSA PRIVATE KEY" * 600,
    "urls": "://a:b" * 3000,
    "names": "api_key=" * 2000,
    "blanks": "token " + " " * 12_000,
    "authorizations": "authorization: a " * 900,
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.timeout(20)  # a rule that backtracks takes minutes
def test_no_text_makes_masking_slow(text: str) -> None:
    assert len(MASKER.heads([text], [10_000])[0]) <= 10_000
