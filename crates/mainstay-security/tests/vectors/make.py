"""Makes vectors.json: tokens, and whether they are to be believed.

Signed by PyJWT and cryptography (OpenSSL), so that what verifies them here and what made them
share no code. Run it with both installed to make the file anew:

    python3 make.py > vectors.json

The moment at which everything is judged is NOW; the issuer trusts https://id.example, audience
`orders`, and every algorithm but where a case says otherwise.
"""

import base64
import hashlib
import hmac
import json
import sys

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NOW = 1_800_000_000
GOOD = {"iss": "https://id.example", "aud": "orders", "sub": "ada", "iat": NOW - 10, "exp": NOW + 600}


def b64(data):
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_OTHER = rsa.generate_private_key(65537, 2048)
RSA_WEAK = rsa.generate_private_key(65537, 1024)
CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
EC_KEYS = {name: ec.generate_private_key(curve) for name, curve in CURVES.items()}
EC_OTHER = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
ED_OTHER = ed25519.Ed25519PrivateKey.generate()
SHARED = hashlib.sha512(b"shared with the issuer").digest()


def jwk(algorithm, key, **more):
    made = json.loads(algorithm.to_jwk(key.public_key()))
    made.pop("key_ops", None)
    return {**made, **more}


RSA_JWK = jwk(RSAAlgorithm, RSA_KEY, kid="rsa")
KEYS = {
    "rsa": RSA_JWK,
    "ed": jwk(OKPAlgorithm, ED_KEY, kid="ed"),
    "shared": {"kty": "oct", "kid": "shared", "k": b64(SHARED)},
}
for NAME, KEY in EC_KEYS.items():
    KEYS[NAME.lower()] = jwk(ECAlgorithm, KEY, kid=NAME.lower())

HASH = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
SIGN_ORDER = {"ES256": 32, "ES384": 48, "ES512": 66}


def raw_es(name, key, message):
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(HASH[name[2:]])))
    size = SIGN_ORDER[name]
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def sign(header, claims, how):
    """A token of texts or objects as they are; `how` makes the signature of what is signed."""
    part = lambda it: b64(it if isinstance(it, (str, bytes)) else json.dumps(it))
    signed = part(header) + "." + part(claims)
    return signed + "." + b64(how(signed.encode()))


def rs(message, key=RSA_KEY, size="256"):
    return key.sign(message, padding.PKCS1v15(), HASH[size])


def ps(message, key=RSA_KEY, size="256", salt=None):
    length = HASH[size].digest_size if salt is None else salt
    return key.sign(message, padding.PSS(padding.MGF1(HASH[size]), length), HASH[size])


def es(message):
    return raw_es("ES256", EC_KEYS["ES256"], message)


def hs(key, name="sha256"):
    return lambda message: hmac.new(key, message, name).digest()


H = {"alg": "ES256", "kid": "es256", "typ": "JWT"}
CASES = []


def case(name, token, want, keys=None, **trust):
    """`want` is `ok`, or the part that refuses."""
    if isinstance(keys, dict):
        keys = [keys]
    CASES.append({"name": name, "token": token, "want": want, "keys": keys, **trust})


def good_ones():
    for size in HASH:
        for family in ("RS", "PS"):
            name = family + size
            case(f"{name} is taken", jwt.encode(GOOD, RSA_KEY, name, {"kid": "rsa"}), "ok")
        case(f"HS{size} is taken of a file",
             jwt.encode(GOOD, SHARED, "HS" + size, {"kid": "shared"}), "ok")
    for name, key in EC_KEYS.items():
        case(f"{name} is taken", jwt.encode(GOOD, key, name, {"kid": name.lower()}), "ok")
    case("EdDSA is taken", jwt.encode(GOOD, ED_KEY, "EdDSA", {"kid": "ed"}), "ok")
    case("no kid, one key that fits", sign({"alg": "ES256"}, GOOD, es), "ok")
    case("a list of audiences", sign(H, {**GOOD, "aud": ["x", "orders"]}, es), "ok")
    case("fractions of seconds", sign(H, {**GOOD, "exp": NOW + 0.5, "nbf": NOW - 0.5}, es), "ok")
    case("within the leeway", sign(H, {**GOOD, "exp": NOW - 29.5, "nbf": NOW + 30, "iat": NOW + 30},
                                   es), "ok")
    case("where the token says its key is does not matter",
         sign({**H, "jku": "https://evil.example", "x5u": "https://evil.example",
               "jwk": jwk(ECAlgorithm, EC_OTHER), "x5c": ["x"]}, GOOD, es), "ok")
    case("white space in JSON", sign('{ "alg" :\r\n"ES256", "kid":"es256" }\n', GOOD, es), "ok")


def form():
    token = sign(H, GOOD, es)
    head, claims, signature = token.split(".")
    last = signature[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = alphabet[alphabet.index(last) ^ 1]
    for name, bad in {
        "empty": "",
        "one part": head,
        "two parts": head + "." + claims,
        "a point more": token + ".",
        "a point before": "." + token,
        "five parts, as of a JWE": token + ".a.b",
        "padding": token + "==",
        "white space before": " " + token,
        "white space after": token + " ",
        "a line after": token + "\n",
        "white space inside": head + "." + claims[:9] + " " + claims[9:] + "." + signature,
        "the other alphabet": head + "." + claims + "." + signature[:-4] + "+/+A",
        "stray bits in the last character": token[:-1] + stray,
        "a NUL": token + "\0",
        "JSON serialisation, flattened": json.dumps(
            {"protected": head, "payload": claims, "signature": signature}),
        "JSON serialisation, general": json.dumps(
            {"payload": claims, "signatures": [{"protected": head, "signature": signature}]}),
        "no header": "." + claims + "." + signature,
        "no claims": head + ".." + signature,
    }.items():
        case(name, bad, "form")
    case("longer than 16 KiB", sign(H, {**GOOD, "x": "y" * 12_500}, es), "form")
    case("just not longer than 16 KiB", sign(H, {**GOOD, "x": "y" * 11_900}, es), "ok")
    case("enc in the header", sign({**H, "enc": "A128GCM"}, GOOD, es), "form")
    good = json.dumps(GOOD)
    for name, bad in {
        "claims twice": '{"sub":"root",' + good[1:],
        "claims twice, escaped": '{"\\u0073ub":"root",' + good[1:],
        "claims twice, deeper": good[:-1] + ',"x":{"a":1,"a":2}}',
        "something after the claims": good + "{}",
        "claims cut short": good[:-1],
        "claims with a comment": "/**/" + good,
        "claims too deep": good[:-1] + ',"x":' + "[" * 8 + "]" * 8 + "}",
        "claims in Latin-1": good.replace("ada", "ad\xe4").encode("latin-1"),
        "claims with a byte order mark": b"\xef\xbb\xbf" + good.encode(),
        "claims in UTF-16": good.encode("utf-16"),
        "claims that are a list": "[" + good + "]",
        "claims that are a text": json.dumps(good),
    }.items():
        case(name, sign(H, bad, es), "form")
    case("eight levels", sign(H, good[:-1] + ',"x":' + "[" * 7 + "]" * 7 + "}", es), "ok")
    for name, bad in {
        "alg twice": '{"alg":"none","alg":"ES256","kid":"es256"}',
        "a header that is a list": '["ES256"]',
        "something after the header": '{"alg":"ES256","kid":"es256"} x',
    }.items():
        case(name, sign(bad, GOOD, es), "form")


def alg():
    for name in ("none", "None", "NONE", "nOnE"):
        for what, how in {"unsigned": lambda m: b"", "signed": es}.items():
            case(f"alg {name}, {what}", sign({**H, "alg": name}, GOOD, how), "alg")
    for name in ("es256", "ES256 ", "ES256K", "HS1", "RSA", "", "EdDSA25519", "RSA-OAEP"):
        case(f"alg `{name}`", sign({**H, "alg": name}, GOOD, es), "alg")
    case("no alg", sign({"kid": "es256"}, GOOD, es), "alg")
    case("alg is a list", sign({**H, "alg": ["ES256"]}, GOOD, es), "alg")
    case("alg is null", sign({**H, "alg": None}, GOOD, es), "alg")
    case("an algorithm that the issuer does not use", sign(H, GOOD, es), "alg", algorithms=["RS256"])
    case("ES384 with a key of P-256", sign({**H, "alg": "ES384"}, GOOD, es), "alg")
    case("RS256 with a key of a curve", sign({**H, "alg": "RS256"}, GOOD, rs), "alg")
    case("a signature of RS256 said to be PS256", sign({"alg": "PS256", "kid": "rsa"}, GOOD, rs),
         "signature")
    case("a signature of PS256 said to be RS256", sign({"alg": "RS256", "kid": "rsa"}, GOOD, ps),
         "signature")
    only = {**RSA_JWK, "alg": "RS256"}
    case("PS256 with a key for RS256", sign({"alg": "PS256", "kid": "rsa"}, GOOD, ps), "alg", only)
    case("RS256 with a key for RS256", sign({"alg": "RS256", "kid": "rsa"}, GOOD, rs), "ok", only)


def confusion():
    """A public key is no secret: whoever takes it for one believes everybody."""
    public = RSA_KEY.public_key()
    texts = {
        "PEM": public.public_bytes(serialization.Encoding.PEM,
                                   serialization.PublicFormat.SubjectPublicKeyInfo),
        "PKCS#1 PEM": public.public_bytes(serialization.Encoding.PEM,
                                          serialization.PublicFormat.PKCS1),
        "DER": public.public_bytes(serialization.Encoding.DER,
                                   serialization.PublicFormat.SubjectPublicKeyInfo),
        "modulus": unb64(RSA_JWK["n"]),
        "JWK": json.dumps(RSA_JWK).encode(),
        "nothing": b"",
    }
    for name, key in texts.items():
        token = sign({"alg": "HS256", "kid": "rsa"}, GOOD, hs(key))
        case(f"HMAC with a public RSA key, {name}", token, "alg")
        token = sign({"alg": "HS256"}, GOOD, hs(key))
        case(f"HMAC with a public RSA key and no kid, {name}", token, "key", RSA_JWK)
    x = unb64(KEYS["es256"]["x"])
    case("HMAC with a coordinate", sign({"alg": "HS256", "kid": "es256"}, GOOD, hs(x)), "alg")
    point = unb64(KEYS["ed"]["x"])
    case("HMAC with a point", sign({"alg": "HS256", "kid": "ed"}, GOOD, hs(point)), "alg")
    pem = {"kty": "oct", "kid": "pem", "k": b64(texts["PEM"])}
    case("a PEM for a shared key", sign({"alg": "HS256", "kid": "pem"}, GOOD, hs(texts["PEM"])),
         "key", [pem, RSA_JWK])
    remote = [KEYS["shared"], RSA_JWK]
    case("a shared key that was fetched", jwt.encode(GOOD, SHARED, "HS256", {"kid": "shared"}),
         "key", remote, origin="remote")


def keys():
    token = sign(H, GOOD, es)
    mine = KEYS["es256"]
    case("an unknown kid", sign({**H, "kid": "other"}, GOOD, es), "key")
    case("kid in other letters", sign({**H, "kid": "ES256"}, GOOD, es), "key")
    case("a kid that is a number", sign({**H, "kid": 1}, GOOD, es), "key")
    case("a kid that is null", sign({**H, "kid": None}, GOOD, es), "key")
    case("a kid that is a path", sign({**H, "kid": "../../dev/null"}, GOOD, es), "key")
    other = jwk(ECAlgorithm, EC_OTHER, kid="other")
    case("no kid, two keys that fit", sign({"alg": "ES256"}, GOOD, es), "key", [mine, other])
    case("no kid, no key that fits", sign({"alg": "ES256"}, GOOD, es), "key", RSA_JWK)
    twin = {**other, "kid": "es256"}
    case("two keys of one name", token, "ok", [twin, mine])
    case("two keys of one name, of two kinds", token, "ok", [{**RSA_JWK, "kid": "es256"}, mine])
    for name, key in {
        "use is enc": {**mine, "use": "enc"},
        "use is something": {**mine, "use": "SIG"},
        "use is a list": {**mine, "use": ["sig"]},
        "key_ops without verify": {**mine, "key_ops": ["sign"]},
        "key_ops is empty": {**mine, "key_ops": []},
        "key_ops is a text": {**mine, "key_ops": "verify"},
        "alg of encryption": {**mine, "alg": "ECDH-ES"},
        "alg of another curve": {**mine, "alg": "ES384"},
        "a private key": {**mine, "d": b64(EC_KEYS["ES256"].private_numbers().private_value
                                           .to_bytes(32, "big"))},
        "another curve": {**mine, "crv": "secp256k1"},
        "a point that is not on the curve": {**mine, "y": mine["x"]},
        "a coordinate of zero": {**mine, "x": b64(bytes(32)), "y": b64(bytes(32))},
        "a coordinate that is too short": {**mine, "x": b64(unb64(mine["x"])[1:])},
        "a coordinate that is too long": {**mine, "x": b64(b"\0" + unb64(mine["x"]))},
        "a coordinate with padding": {**mine, "x": mine["x"] + "="},
        "a coordinate that is missing": {k: v for k, v in mine.items() if k != "y"},
        "no kty": {k: v for k, v in mine.items() if k != "kty"},
        "kty of another kind": {**mine, "kty": "RSA"},
        "kty in other letters": {**mine, "kty": "ec"},
        "another key": {**other, "kid": "es257"},
    }.items():
        case(f"key: {name}", token, "key", [key, KEYS["rsa"]])
    case("key: use is sig, key_ops has verify, alg is its own", token, "ok",
         {**mine, "use": "sig", "key_ops": ["sign", "verify"], "alg": "ES256"})


def strength():
    rsa_token = sign({"alg": "RS256", "kid": "rsa"}, GOOD, rs)
    n = unb64(RSA_JWK["n"])
    even = bytes([*n[:-1], n[-1] & 0xFE])
    long = b64(b"\x80" + bytes(1024) + b"\x01")
    for name, key in {
        "a modulus of 8,200 bits": {**RSA_JWK, "n": long},
        "a modulus of 1,024 bits": {**RSA_JWK, "n": b64(n[:128])},
        "an even modulus": {**RSA_JWK, "n": b64(even)},
        "an exponent of 1": {**RSA_JWK, "e": "AQ"},
        "an exponent of 2": {**RSA_JWK, "e": "Ag"},
        "an even exponent": {**RSA_JWK, "e": b64(b"\x01\x00\x00")},
        "an exponent of 0": {**RSA_JWK, "e": "AA"},
        "no exponent": {**RSA_JWK, "e": ""},
        "an exponent with zeros before it": {**RSA_JWK, "e": b64(b"\0\x01\0\x01")},
        "a modulus with zeros before it": {**RSA_JWK, "n": b64(b"\0" + n)},
        "a modulus in plain base64": {**RSA_JWK, "n": base64.b64encode(n).decode()},
        "a modulus with stray bits": {**RSA_JWK, "n": RSA_JWK["n"][:-1] + "_"},
    }.items():
        case(f"strength: {name}", rsa_token, "key", [key, KEYS["es256"]])
    weak = jwk(RSAAlgorithm, RSA_WEAK, kid="rsa")
    case("strength: RSA of 1,024 bits", sign({"alg": "RS256", "kid": "rsa"}, GOOD,
         lambda m: rs(m, RSA_WEAK)), "key", [weak, KEYS["es256"]])
    three = rsa.generate_private_key(3, 2048)
    case("strength: an exponent of 3 is taken", sign({"alg": "RS256", "kid": "rsa"}, GOOD,
         lambda m: rs(m, three)), "ok", jwk(RSAAlgorithm, three, kid="rsa"))
    for size, digest, short in (("256", "sha256", 31), ("384", "sha384", 47), ("512", "sha512", 63)):
        key = {"kty": "oct", "kid": "s", "k": b64(SHARED[:short])}
        want = "key" if short < 32 else "alg"
        case(f"strength: HS{size} with {short} bytes",
             sign({"alg": "HS" + size, "kid": "s"}, GOOD, hs(SHARED[:short], digest)), want,
             [key, KEYS["es256"]])
        key = {"kty": "oct", "kid": "s", "k": b64(SHARED[:short + 1])}
        case(f"strength: HS{size} with {short + 1} bytes",
             sign({"alg": "HS" + size, "kid": "s"}, GOOD, hs(SHARED[:short + 1], digest)), "ok", key)


def signature():
    order = {
        "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
        "ES384": int("FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF"
                     "581A0DB248B0A77AECEC196ACCC52973", 16),
        "ES512": int("1" + "F" * 64 + "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91"
                     "386409", 16),
    }
    for name, key in EC_KEYS.items():
        size, head = SIGN_ORDER[name], {"alg": name, "kid": name.lower()}
        good = lambda m, name=name, key=key: raw_es(name, key, m)
        der = lambda m, name=name, key=key: key.sign(m, ec.ECDSA(HASH[name[2:]]))
        number = lambda r, s, size=size: (
            lambda m: r.to_bytes(size, "big") + s.to_bytes(size, "big"))
        n = order[name]

        def shifted(m, good=good, size=size, n=n):
            """The same number modulo n, where it has room."""
            made = good(m)
            r = int.from_bytes(made[:size], "big")
            while 8 * size < (r + n).bit_length():
                made = good(m)
                r = int.from_bytes(made[:size], "big")
                if size != 66:  # The other curves have hardly any room above n.
                    return n.to_bytes(size, "big") + made[size:]
            return (r + n).to_bytes(size, "big") + made[size:]

        for what, how in {
            "in DER": der,
            "r and s of zero": number(0, 0),
            "r of zero": lambda m, good=good, size=size: bytes(size) + good(m)[size:],
            "s of zero": lambda m, good=good, size=size: good(m)[:size] + bytes(size),
            "r and s of n": number(n, n),
            "r of n": lambda m, good=good, size=size, n=n: n.to_bytes(size, "big") + good(m)[size:],
            "r above n": shifted,
            "r and s of one": number(1, 1),
            "r and s changed round": lambda m, good=good, size=size: good(m)[size:] + good(m)[:size],
            "cut short": lambda m, good=good: good(m)[:-1],
            "longer": lambda m, good=good: good(m) + b"\0",
            "with a zero before r and s": lambda m, good=good, size=size:
                b"\0" + good(m)[:size] + b"\0" + good(m)[size:],
            "empty": lambda m: b"",
            "one bit wrong": lambda m, good=good: bytes([good(m)[0] ^ 1]) + good(m)[1:],
        }.items():
            case(f"{name}: {what}", sign(head, GOOD, how), "signature")
    for name, how in {"RS256": rs, "PS256": ps}.items():
        head = {"alg": name, "kid": "rsa"}
        for what, how in {
            "of another key": lambda m, how=how: how(m, RSA_OTHER),
            "of another digest": lambda m, how=how: how(m, RSA_KEY, "512"),
            "cut short": lambda m, how=how: how(m)[:-1],
            "longer": lambda m, how=how: how(m) + b"\0",
            "with a zero before it": lambda m, how=how: b"\0" + how(m),
            "empty": lambda m: b"",
            "zero": lambda m: bytes(256),
            "one": lambda m: bytes(255) + b"\x01",
            "all ones": lambda m: b"\xff" * 256,
            "of the modulus added": lambda m, how=how: (
                int.from_bytes(how(m), "big") + RSA_KEY.public_key().public_numbers().n
            ).to_bytes(257, "big")[-256:],
        }.items():
            case(f"{name}: {what}", sign(head, GOOD, how), "signature")
    for salt in (0, 20, 31, 33, 64):
        case(f"PS256: a salt of {salt} bytes",
             sign({"alg": "PS256", "kid": "rsa"}, GOOD, lambda m, salt=salt: ps(m, salt=salt)),
             "signature")
    head = {"alg": "EdDSA", "kid": "ed"}
    for what, how in {
        "of another key": lambda m: ED_OTHER.sign(m),
        "cut short": lambda m: ED_KEY.sign(m)[:-1],
        "longer": lambda m: ED_KEY.sign(m) + b"\0",
        "empty": lambda m: b"",
        "zero": lambda m: bytes(64),
        "s plus the order": lambda m: ED_KEY.sign(m)[:32] + (
            int.from_bytes(ED_KEY.sign(m)[32:], "little")
            + 2**252 + 27742317777372353535851937790883648493).to_bytes(32, "little"),
    }.items():
        case(f"EdDSA: {what}", sign(head, GOOD, how), "signature")
    head = {"alg": "HS256", "kid": "shared"}
    for what, how in {
        "of another key": hs(b"x" * 64),
        "cut short": lambda m: hs(SHARED)(m)[:16],
        "cut to one byte": lambda m: hs(SHARED)(m)[:1],
        "empty": lambda m: b"",
        "longer": lambda m: hs(SHARED)(m) + b"\0",
        "of another digest": hs(SHARED, "sha512"),
    }.items():
        case(f"HS256: {what}", sign(head, GOOD, how), "signature")
    head, claims, tail = sign(H, GOOD, es).split(".")
    case("other claims", ".".join([head, b64(json.dumps({**GOOD, "sub": "root"})), tail]), "signature")
    case("another header", ".".join([b64(json.dumps({**H, "typ": "X"})), claims, tail]), "signature")
    case("the signature of another token",
         ".".join([head, claims, sign(H, {**GOOD, "sub": "bob"}, es).split(".")[2]]), "signature")


def crit():
    for name, more in {
        "an unknown entry": {"crit": ["exp"], "exp": 1},
        "an empty list": {"crit": []},
        "a text": {"crit": "exp", "exp": 1},
        "null": {"crit": None},
        "a name that is not there": {"crit": ["x"]},
        "a number in the list": {"crit": [1]},
        "b64": {"crit": ["b64"], "b64": True},
        "b64 that is false": {"crit": ["b64"], "b64": False},
        "b64 without crit": {"b64": False},
        "a name of the standard": {"crit": ["alg"]},
    }.items():
        case(f"crit: {name}", sign({**H, **more}, GOOD, es), "crit")


def claims():
    without = lambda name: {k: v for k, v in GOOD.items() if k != name}
    for name, bad in {
        "no exp": without("exp"),
        "exp is over": {**GOOD, "exp": NOW - 30},
        "exp is long over": {**GOOD, "exp": 1},
        "exp is negative": {**GOOD, "exp": -1},
        "exp is a text": {**GOOD, "exp": str(NOW + 600)},
        "exp is null": {**GOOD, "exp": None},
        "exp is true": {**GOOD, "exp": True},
        "nbf is not yet": {**GOOD, "nbf": NOW + 31},
        "nbf is a text": {**GOOD, "nbf": "0"},
        "iat in the future": {**GOOD, "iat": NOW + 31},
        "iat is a list": {**GOOD, "iat": [0]},
        "no iss": without("iss"),
        "another iss": {**GOOD, "iss": "https://id.example/"},
        "iss in other letters": {**GOOD, "iss": "https://ID.example"},
        "iss is a list": {**GOOD, "iss": ["https://id.example"]},
        "no aud": without("aud"),
        "another aud": {**GOOD, "aud": "order"},
        "aud in other letters": {**GOOD, "aud": "Orders"},
        "aud is a list of others": {**GOOD, "aud": ["a", "b"]},
        "aud is an empty list": {**GOOD, "aud": []},
        "aud is a list with a number": {**GOOD, "aud": ["orders", 1]},
        "aud is an object": {**GOOD, "aud": {"orders": 1}},
        "aud is null": {**GOOD, "aud": None},
        "aud with a space": {**GOOD, "aud": "orders other"},
        "sub is a number": {**GOOD, "sub": 1},
    }.items():
        case(f"claims: {name}", sign(H, bad, es), "claims")
    case("claims: a life that is too long", sign(H, GOOD, es), "claims", max_life_seconds=609)
    case("claims: a life just not too long", sign(H, GOOD, es), "ok", max_life_seconds=610)
    case("claims: nobody knows how long", sign(H, without("iat"), es), "claims", max_life_seconds=9999)
    case("claims: no leeway", sign(H, {**GOOD, "exp": NOW - 1}, es), "claims", leeway_seconds=0)


for make in (good_ones, form, alg, confusion, keys, strength, signature, crit, claims):
    make()
json.dump({"now": NOW, "keys": list(KEYS.values()), "cases": CASES}, sys.stdout, indent=0)
